#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "stator/index/reserved.h"

namespace stator::index {

/// Spreads hashes that are not random, so that tables may take any of the bits.
inline std::uint64_t mixed(std::uint64_t hash) {
    hash *= 0x9e3779b97f4a7c15U;
    return hash ^ (hash >> 32);
}

/// Block → unit of the block store, 4 bytes each: 24 bits of unit and 8 bits of the hash. Buckets
/// are cache lines of 15 slots; what does not fit goes to the next ones, and each bucket counts
/// what passed it, so that a search ends and nothing moves when a slot becomes free. Does not know
/// the hashes: whoever calls checks whether the unit has the block. The writer's own; no reader
/// comes here.
class Locator {
  public:
    static constexpr std::size_t kFewestBuckets = 16;
    explicit Locator(std::size_t buckets = kFewestBuckets);  ///< a power of two

    void prefetch(std::uint64_t hash) const {
        __builtin_prefetch(&buckets_[mixed(hash) & mask_], 1);
    }
    /// Calls has(unit) for the units that may hold it, until one says so. 0 = none.
    template <typename Has>
    [[nodiscard]] std::uint32_t find(std::uint64_t hash, Has has) const {
        const std::uint64_t m = mixed(hash);
        for (std::size_t i = 0; i < kMaxProbes; ++i) {
            const Bucket& bucket = buckets_[(m + i) & mask_];
            for (std::uint32_t hits = matches(bucket, tag_of(m)); hits != 0; hits &= hits - 1) {
                const std::uint32_t unit = bucket.slots[std::countr_zero(hits)] & kUnitMask;
                if (unit != 0 && has(unit)) return unit;
            }
            if (bucket.passed == 0) break;
        }
        return 0;
    }
    /// False if its neighbourhood is full: too many with nearly the same hash.
    [[nodiscard]] bool insert(std::uint64_t hash, std::uint32_t unit);
    /// Nothing if it is not there.
    void erase(std::uint64_t hash, std::uint32_t unit);

    [[nodiscard]] bool crowded() const { return size_ >= capacity_ / 5 * 4; }
    [[nodiscard]] bool sparse() const { return capacity_ > kSmall && size_ < capacity_ / 8; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t buckets() const { return mask_ + 1; }
    [[nodiscard]] std::size_t memory_bytes() const { return (mask_ + 1) * sizeof(Bucket); }

  private:
    static constexpr std::uint32_t kSlots = 15;
    static constexpr std::size_t kMaxProbes = 64;
    static constexpr std::uint32_t kUnitMask = 0xffffff;
    static constexpr std::size_t kSmall = 4096;
    struct alignas(64) Bucket {
        std::uint32_t slots[kSlots];
        std::uint32_t passed;  // how many that belong here or before stand further on
    };
    static std::uint32_t tag_of(std::uint64_t m) {
        return static_cast<std::uint32_t>(m >> 56) << 24;
    }
    /// One bit for each slot with this tag. Empty slots have tag 0 and unit 0.
    static std::uint32_t matches(const Bucket& bucket, std::uint32_t tag) {
        std::uint32_t hits = 0;
        for (std::uint32_t i = 0; i < kSlots; ++i) {
            hits |= static_cast<std::uint32_t>((bucket.slots[i] & ~kUnitMask) == tag) << i;
        }
        return hits;
    }

    ReservedArray<Bucket> buckets_;
    std::size_t mask_;
    std::size_t size_ = 0;
    std::size_t capacity_;
};

}  // namespace stator::index
