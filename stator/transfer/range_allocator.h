#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace stator::transfer {

/// Which ranges of [0, capacity) are taken. Takes the lowest that fits, so that memory that was
/// used before is used again; neighbours that come free are joined. Pure; not thread-safe.
class RangeAllocator {
  public:
    /// Ranges begin at and are rounded up to multiples of `alignment` (a power of two).
    RangeAllocator(std::uint64_t capacity, std::uint64_t alignment);

    /// Offset of a free range of at least `bytes` (at least 1), or none.
    [[nodiscard]] std::optional<std::uint64_t> take(std::uint64_t bytes);
    /// STATOR_CHECK: `offset` was taken and not yet given back.
    void give_back(std::uint64_t offset);

    [[nodiscard]] std::uint64_t taken_bytes() const { return taken_bytes_; }
    [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
    /// Free ranges by offset, none beside another one.
    [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& free_ranges() const {
        return free_;
    }

  private:
    std::uint64_t capacity_;
    std::uint64_t alignment_;
    std::uint64_t taken_bytes_ = 0;
    std::map<std::uint64_t, std::uint64_t> free_;   // offset -> bytes
    std::map<std::uint64_t, std::uint64_t> taken_;  // offset -> bytes
};

}  // namespace stator::transfer
