#include "stator/index/block_store.h"

#include <algorithm>
#include <bit>

#include "stator/base/check.h"

namespace stator::index {

BlockStore::BlockStore(std::size_t max_blocks)
    // Readers with stale numbers may look a run too far.
    : words_((max_blocks / kUnit + 2) * kUnit + std::size_t{kMaxUnits} * kUnit),
      owners_(max_blocks / kUnit + 2),
      end_(static_cast<std::uint32_t>(max_blocks / kUnit + 2)) {
    // A small index takes no more than it needs.
    words_.prefer_huge_pages(std::size_t{1} << 21);
    STATOR_CHECK(max_blocks <= (std::size_t{1} << 27), "units are numbered with 24 bits");
}

void BlockStore::put_free(std::uint32_t first, std::uint32_t units, bool released) {
    const std::uint32_t mark = kFree | units | (released ? kReleased : 0);
    owners_[first] = owners_[first + units - 1] = mark;
    const std::uint32_t bin = bin_of(units);
    set_link(first, 0, 0);
    set_link(first, 1, bins_[bin]);
    if (bins_[bin] != 0) set_link(bins_[bin], 0, first);
    bins_[bin] = first;
    filled_[bin / 64] |= std::uint64_t{1} << (bin % 64);
}

void BlockStore::take_free(std::uint32_t first) {
    const std::uint32_t mark = owners_[first];
    const std::uint32_t bin = bin_of(mark & kSize);
    const std::uint32_t before = link(first, 0);
    const std::uint32_t after = link(first, 1);
    if (after != 0) set_link(after, 0, before);
    if (before != 0) {
        set_link(before, 1, after);
    } else {
        bins_[bin] = after;
        if (after == 0) filled_[bin / 64] &= ~(std::uint64_t{1} << (bin % 64));
    }
    if ((mark & kReleased) != 0) released_ -= mark & kSize;
}

std::uint32_t BlockStore::allocate(std::uint32_t units, std::uint32_t owner) {
    STATOR_ASSERT(units > 0 && units <= kMaxUnits);
    std::uint32_t first = kNone;
    std::uint32_t word = units / 64;
    std::uint64_t candidates = filled_[word] & (~std::uint64_t{0} << (units % 64));
    while (candidates == 0 && ++word < filled_.size()) candidates = filled_[word];
    if (candidates != 0) {
        const auto bin = word * 64 + static_cast<std::uint32_t>(std::countr_zero(candidates));
        first = bins_[bin];
        const std::uint32_t size = owners_[first] & kSize;
        take_free(first);
        if (size > units) put_free(first + units, size - units, false);
    } else if (units <= end_ - top_) {
        first = top_;
        top_ += units;
        touched_ = std::max(touched_, top_);
    } else {
        return kNone;
    }
    set_owner(first, units, owner);
    used_ += units;
    return first;
}

bool BlockStore::grow(std::uint32_t end, std::uint32_t owner) {
    if (end == top_) {
        if (top_ == end_) return false;
        touched_ = std::max(touched_, ++top_);
    } else if ((owners_[end] & kFree) != 0) {
        const std::uint32_t size = owners_[end] & kSize;
        take_free(end);
        if (size > 1) put_free(end + 1, size - 1, false);
    } else {
        return false;
    }
    owners_[end] = owner;
    ++used_;
    return true;
}

void BlockStore::free(std::uint32_t first, std::uint32_t units) {
    used_ -= units;
    if (first > 1 && (owners_[first - 1] & kFree) != 0) {
        const std::uint32_t before = owners_[first - 1] & kSize;
        take_free(first - before);
        first -= before;
        units += before;
    }
    if (first + units < top_ && (owners_[first + units] & kFree) != 0) {
        const std::uint32_t after = owners_[first + units] & kSize;
        take_free(first + units);
        units += after;
    }
    if (first + units == top_) {
        top_ = first;
    } else {
        put_free(first, units, false);
    }
}

void BlockStore::set_owner(std::uint32_t first, std::uint32_t units, std::uint32_t owner) {
    for (std::uint32_t u = first; u < first + units; ++u) owners_[u] = owner;
}

void BlockStore::release_unused() {
    if (touched_ - top_ >= kReleasable) {
        words_.discard(std::size_t{top_} * kUnit, std::size_t{touched_} * kUnit);
        owners_.discard(top_, touched_);
        touched_ = top_;
    }
    for (std::uint32_t first = bins_[kMaxUnits]; first != 0; first = link(first, 1)) {
        const std::uint32_t mark = owners_[first];
        const std::uint32_t size = mark & kSize;
        if ((mark & kReleased) != 0 || size < kReleasable) continue;
        // The first unit holds the list's links, both ends hold the size.
        words_.discard(std::size_t{first + 1} * kUnit, std::size_t{first + size} * kUnit);
        owners_.discard(first + 1, first + size - 1);
        owners_[first] = owners_[first + size - 1] = mark | kReleased;
        released_ += size;
    }
}

}  // namespace stator::index
