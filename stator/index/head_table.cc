#include "stator/index/head_table.h"

#include <algorithm>

namespace stator::index {

using std::memory_order_relaxed;
using std::memory_order_release;

HeadTable::HeadTable(std::size_t max_runs)
    : tables_{Table(std::bit_ceil(max_runs / kSlots * 2 + 32)),
              Table(std::bit_ceil(max_runs / kSlots * 2 + 32))},
      capacity_(16 * kSlots) {
    tables_[0].mask.store(15, memory_order_relaxed);
}

bool HeadTable::insert(std::uint64_t hash, std::uint32_t run) {
    Table& t = tables_[filling_];
    const std::uint64_t m = mixed(hash);
    const std::size_t mask = t.mask.load(memory_order_relaxed);
    for (std::size_t i = 0; i < kMaxProbes; ++i) {
        for (auto& slot : t.buckets[(m + i) & mask].slots) {
            if (slot.load(memory_order_relaxed) != 0) continue;
            // First the signs on the way, so that a reader that looks from now on goes on to it.
            for (std::size_t j = 0; j < i; ++j) {
                auto& passed = t.buckets[(m + j) & mask].passed;
                passed.store(passed.load(memory_order_relaxed) + 1, memory_order_release);
            }
            slot.store(std::uint64_t{tag_of(m)} << 32 | run, memory_order_release);
            ++size_;
            return true;
        }
    }
    return false;
}

void HeadTable::erase(std::uint64_t hash, std::uint32_t run) {
    Table& t = tables_[filling_];
    const std::uint64_t m = mixed(hash);
    const std::size_t mask = t.mask.load(memory_order_relaxed);
    for (std::size_t i = 0; i < kMaxProbes; ++i) {
        for (auto& slot : t.buckets[(m + i) & mask].slots) {
            if (slot.load(memory_order_relaxed) != (std::uint64_t{tag_of(m)} << 32 | run)) continue;
            slot.store(0, memory_order_release);
            for (std::size_t j = 0; j < i; ++j) {
                auto& passed = t.buckets[(m + j) & mask].passed;
                passed.store(passed.load(memory_order_relaxed) - 1, memory_order_release);
            }
            --size_;
            return;
        }
    }
}

void HeadTable::start_rebuild(std::size_t runs) {
    filling_ = 1 - current_.load(memory_order_relaxed);
    Table& t = tables_[filling_];
    const std::size_t buckets =
        std::clamp<std::size_t>(std::bit_ceil(runs * 2 / kSlots + 1), 16, t.buckets.size());
    t.mask.store(buckets - 1, memory_order_relaxed);
    capacity_ = buckets * kSlots;
    size_ = 0;
}

void HeadTable::publish() {
    const std::uint32_t old = current_.load(memory_order_relaxed);
    current_.store(filling_, memory_order_release);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    // A reader that is still in the old table finds nothing there from now on, and asks again.
    const std::size_t buckets = tables_[old].mask.load(memory_order_relaxed) + 1;
    if (buckets * sizeof(Bucket) >= 4096) {
        tables_[old].buckets.discard(0, buckets);  // whole pages: it is a power of two
        return;
    }
    for (std::size_t b = 0; b < buckets; ++b) {
        for (auto& slot : tables_[old].buckets[b].slots) slot.store(0, memory_order_relaxed);
        tables_[old].buckets[b].passed.store(0, memory_order_relaxed);
    }
}

}  // namespace stator::index
