#include "stator/index/locator.h"

namespace stator::index {

Locator::Locator(std::size_t buckets)
    : buckets_(buckets), mask_(buckets_.size() - 1), capacity_(buckets_.size() * kSlots) {
    buckets_.prefer_huge_pages();
}

bool Locator::insert(std::uint64_t hash, std::uint32_t unit) {
    const std::uint64_t m = mixed(hash);
    for (std::size_t i = 0; i < kMaxProbes; ++i) {
        Bucket& bucket = buckets_[(m + i) & mask_];
        for (std::uint32_t& slot : bucket.slots) {
            if (slot != 0) continue;
            slot = tag_of(m) | unit;
            for (std::size_t j = 0; j < i; ++j) ++buckets_[(m + j) & mask_].passed;
            ++size_;
            return true;
        }
    }
    return false;
}

void Locator::erase(std::uint64_t hash, std::uint32_t unit) {
    const std::uint64_t m = mixed(hash);
    for (std::size_t i = 0; i < kMaxProbes; ++i) {
        for (std::uint32_t& slot : buckets_[(m + i) & mask_].slots) {
            if (slot != (tag_of(m) | unit)) continue;
            slot = 0;
            for (std::size_t j = 0; j < i; ++j) --buckets_[(m + j) & mask_].passed;
            --size_;
            return;
        }
    }
}

}  // namespace stator::index
