#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "stator/base/error.h"
#include "stator/runtime/descriptor.h"
#include "stator/transfer/range_allocator.h"

namespace stator::transfer {

class Arena;

/// A range of an arena, given back when this goes. Keeps the arena alive.
class ArenaRange {
  public:
    ArenaRange(std::shared_ptr<Arena> arena, std::uint64_t offset, std::uint64_t bytes)
        : arena_(std::move(arena)), offset_(offset), bytes_(bytes) {}
    ~ArenaRange();
    ArenaRange(const ArenaRange&) = delete;
    ArenaRange& operator=(const ArenaRange&) = delete;

    [[nodiscard]] std::uint64_t offset() const { return offset_; }
    [[nodiscard]] std::span<std::byte> bytes() const;
    /// Sees to it that its pages are there, in one system call instead of a fault for each. Blocks
    /// for some milliseconds where they are not. kExhausted: the machine has no memory for them.
    [[nodiscard]] Result<void> populate() const;

  private:
    std::shared_ptr<Arena> arena_;
    std::uint64_t offset_;
    std::uint64_t bytes_;
};

/// Memory from which handoffs take ranges: one memfd, mapped once, as long as it can ever
/// become. Pages are there once they were used and stay for whoever comes next; what is idle goes
/// back to the system by trim(). Other processes may map it for reading; it can't be cut short
/// under them. Thread-safe.
class Arena : public std::enable_shared_from_this<Arena> {
  public:
    /// `name` is what /proc shows. kExhausted with the system's reason.
    [[nodiscard]] static Result<std::shared_ptr<Arena>> make(const char* name,
                                                             std::uint64_t capacity);
    /// One that no other process can map; in huge pages where the system has them.
    [[nodiscard]] static Result<std::shared_ptr<Arena>> make_private(std::uint64_t capacity);
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    /// kExhausted: no range is that long.
    [[nodiscard]] Result<std::shared_ptr<ArenaRange>> take(std::uint64_t bytes);
    /// Gives pages of free ranges back to the system until no more are there than `keep_bytes` or
    /// than were in use at once since the last call but one.
    void trim(std::uint64_t keep_bytes);

    [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
    [[nodiscard]] std::uint64_t taken_bytes() const;
    /// Bytes of memory that are there, in use or not.
    [[nodiscard]] std::uint64_t resident_bytes() const;
    /// A descriptor that can be mapped for reading only; lives as long as this. -1: there is none.
    [[nodiscard]] int read_only_fd() const { return read_only_.get(); }
    [[nodiscard]] std::span<std::byte> memory() const { return {memory_, capacity_}; }

  private:
    friend class ArenaRange;
    Arena(int fd, int read_only, std::byte* memory, std::uint64_t capacity);
    void give_back(std::uint64_t offset);
    [[nodiscard]] Result<void> populate(std::uint64_t offset, std::uint64_t bytes);

    runtime::Descriptor fd_;
    runtime::Descriptor read_only_;
    std::byte* memory_;
    std::uint64_t capacity_;
    mutable std::mutex mutex_;
    RangeAllocator ranges_;
    std::vector<bool> present_;  ///< by granule
    std::uint64_t present_count_ = 0;
    std::uint64_t high_ = 0;          ///< most bytes taken at once since the last trim()
    std::uint64_t earlier_high_ = 0;  ///< and between that and the one before
};

}  // namespace stator::transfer
