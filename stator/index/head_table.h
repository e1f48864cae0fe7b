#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "stator/index/locator.h"
#include "stator/index/reserved.h"

namespace stator::index {

/// First block of a run → the run, 8 bytes each: the run and 32 bits of the hash. Same buckets as
/// the locator's, with 7 slots. One writer; any number of readers beside it, which write nothing. A
/// reader that finds nothing asks generation() before and after: if it changed, the table grew
/// meanwhile and nothing follows from it.
class HeadTable {
  public:
    /// `max_runs` bounds it for good (its address space).
    explicit HeadTable(std::size_t max_runs);

    void prefetch(std::uint64_t hash) const {
        const Table& t = table();
        __builtin_prefetch(&t.buckets[mixed(hash) & t.mask.load(std::memory_order_relaxed)]);
    }
    /// Calls is(run) for the runs that may begin with this block, until one says so. 0 = none.
    template <typename Is>
    [[nodiscard]] std::uint32_t find(std::uint64_t hash, Is is) const {
        const Table& t = table();
        const std::uint64_t m = mixed(hash);
        const std::size_t mask = t.mask.load(std::memory_order_relaxed);
        for (std::size_t i = 0; i < kMaxProbes; ++i) {
            const Bucket& bucket = t.buckets[(m + i) & mask];
            for (const auto& slot : bucket.slots) {
                const std::uint64_t s = slot.load(std::memory_order_acquire);
                const auto run = static_cast<std::uint32_t>(s);
                if (static_cast<std::uint32_t>(s >> 32) == tag_of(m) && run != 0 && is(run)) {
                    return run;
                }
            }
            if (bucket.passed.load(std::memory_order_acquire) == 0) break;
        }
        return 0;
    }
    [[nodiscard]] std::uint64_t generation() const {
        return generation_.load(std::memory_order_acquire);
    }

    /// False if its neighbourhood is full.
    [[nodiscard]] bool insert(std::uint64_t hash, std::uint32_t run);
    /// Nothing if it is not there.
    void erase(std::uint64_t hash, std::uint32_t run);
    [[nodiscard]] bool crowded() const { return size_ >= capacity_ / 4 * 3; }
    [[nodiscard]] bool sparse() const { return capacity_ > kSmall && size_ < capacity_ / 8; }
    /// Empties it and makes room for twice `runs`; all are to be inserted again, then publish().
    /// Readers see the old table until then.
    void start_rebuild(std::size_t runs);
    void publish();
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t memory_bytes() const { return capacity_ / kSlots * sizeof(Bucket); }

  private:
    static constexpr std::uint32_t kSlots = 7;
    static constexpr std::size_t kMaxProbes = 64;
    static constexpr std::size_t kSmall = 1024;
    struct alignas(64) Bucket {
        std::atomic<std::uint64_t> slots[kSlots];
        std::atomic<std::uint64_t> passed;
    };
    struct Table {
        explicit Table(std::size_t size) : buckets(size) {}
        ReservedArray<Bucket> buckets;
        std::atomic<std::size_t> mask{0};
    };
    static std::uint32_t tag_of(std::uint64_t m) { return static_cast<std::uint32_t>(m >> 32); }
    [[nodiscard]] const Table& table() const {
        return tables_[current_.load(std::memory_order_acquire)];
    }

    Table tables_[2];  // one is published; the other is empty or being filled
    std::atomic<std::uint32_t> current_{0};
    std::atomic<std::uint64_t> generation_{0};
    std::uint32_t filling_ = 0;  // the one that the writer changes
    std::size_t size_ = 0;
    std::size_t capacity_;
};

}  // namespace stator::index
