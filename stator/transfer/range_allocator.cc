#include "stator/transfer/range_allocator.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "stator/base/check.h"

namespace stator::transfer {

RangeAllocator::RangeAllocator(std::uint64_t capacity, std::uint64_t alignment)
    : capacity_(capacity & ~(alignment - 1)), alignment_(alignment) {
    STATOR_CHECK(std::has_single_bit(alignment), "alignments are powers of two");
    if (capacity_ > 0) free_.emplace(0, capacity_);
}

std::optional<std::uint64_t> RangeAllocator::take(std::uint64_t bytes) {
    if (bytes > capacity_) return std::nullopt;
    const std::uint64_t size =
        (std::max<std::uint64_t>(bytes, 1) + alignment_ - 1) & ~(alignment_ - 1);
    const auto found =
        std::ranges::find_if(free_, [size](const auto& range) { return range.second >= size; });
    if (found == free_.end()) return std::nullopt;
    const auto [offset, room] = *found;
    free_.erase(found);
    if (room > size) free_.emplace(offset + size, room - size);
    taken_.emplace(offset, size);
    taken_bytes_ += size;
    return offset;
}

void RangeAllocator::give_back(std::uint64_t offset) {
    const auto taken = taken_.find(offset);
    STATOR_CHECK(taken != taken_.end(), "only a range that was taken can be given back");
    std::uint64_t begin = offset;
    std::uint64_t size = taken->second;
    taken_bytes_ -= size;
    taken_.erase(taken);
    auto after = free_.lower_bound(begin);
    if (after != free_.end() && after->first == begin + size) {
        size += after->second;
        after = free_.erase(after);
    }
    if (after != free_.begin()) {
        const auto before = std::prev(after);
        if (before->first + before->second == begin) {
            before->second += size;
            return;
        }
    }
    free_.emplace(begin, size);
}

}  // namespace stator::transfer
