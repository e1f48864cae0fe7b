#include "stator/index/holder_pool.h"

#include <algorithm>

#include "stator/base/check.h"

namespace stator::index {

std::uint32_t HolderPool::allocate(std::uint32_t c) {
    STATOR_ASSERT(c < kClasses);
    std::uint32_t first = free_[c];
    if (first != 0) {
        free_[c] = static_cast<std::uint32_t>(get(first));
    } else {
        if (top_ + words_of(c) > words_.size()) return kNone;
        first = static_cast<std::uint32_t>(top_);
        top_ += words_of(c);
        touched_ = std::max(touched_, top_);
    }
    used_ += words_of(c);
    return first;
}

void HolderPool::free(std::uint32_t first, std::uint32_t c) {
    set(first, free_[c]);
    free_[c] = first;
    used_ -= words_of(c);
}

void HolderPool::release_unused() {
    if (used_ != 0 || touched_ == kFirst) return;
    words_.discard(0, touched_);
    free_ = {};
    top_ = touched_ = kFirst;
}

}  // namespace stator::index
