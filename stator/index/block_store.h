#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "stator/index/reserved.h"

namespace stator::index {

/// Where the sequence hashes lie: an array of 64-bit words, handed out as extents of whole units of
/// 8 words (a cache line). One writer; readers may read any word at any time (words are atomic) and
/// must find out by themselves whether it was still theirs.
class BlockStore {
  public:
    static constexpr std::uint32_t kUnit = 8;        ///< blocks per unit
    static constexpr std::uint32_t kMaxUnits = 256;  ///< per extent
    static constexpr std::uint32_t kNone = 0;        ///< unit 0 is never handed out

    /// `max_blocks` at most 2^27.
    explicit BlockStore(std::size_t max_blocks);

    /// The first unit of an extent of `units` (1 to kMaxUnits) that belongs to `owner`; kNone if
    /// all is used.
    [[nodiscard]] std::uint32_t allocate(std::uint32_t units, std::uint32_t owner);
    /// Makes the extent that ends before `end` one unit longer, in place; false if what follows is
    /// used.
    [[nodiscard]] bool grow(std::uint32_t end, std::uint32_t owner);
    void free(std::uint32_t first, std::uint32_t units);
    void set_owner(std::uint32_t first, std::uint32_t units, std::uint32_t owner);
    [[nodiscard]] std::uint32_t owner(std::uint32_t unit) const { return owners_[unit]; }

    [[nodiscard]] std::uint64_t get(std::uint32_t block) const {
        return words_[block].load(std::memory_order_relaxed);
    }
    void set(std::uint32_t block, std::uint64_t hash) {
        words_[block].store(hash, std::memory_order_relaxed);
    }
    /// All units have smaller numbers than 2 to this.
    [[nodiscard]] int unit_bits() const { return std::bit_width(end_); }
    void prefetch(std::uint32_t block) const { __builtin_prefetch(&words_[block]); }

    /// Gives pages back to the system that hold free units only. O(free extents).
    void release_unused();
    [[nodiscard]] std::size_t used_bytes() const { return std::size_t{used_} * kBytesPerUnit; }
    /// With what is free but not given back.
    [[nodiscard]] std::size_t memory_bytes() const {
        return std::size_t{touched_ - released_} * kBytesPerUnit;
    }

  private:
    static constexpr std::uint32_t kFree = 0x80000000;
    static constexpr std::uint32_t kReleased = 0x40000000;  // its inner pages were given back
    static constexpr std::uint32_t kSize = 0x3fffffff;
    static constexpr std::size_t kBytesPerUnit = kUnit * 8 + sizeof(std::uint32_t);
    static constexpr std::uint32_t kReleasable = 1024;  // units

    [[nodiscard]] std::uint32_t link(std::uint32_t unit, int which) const {
        return static_cast<std::uint32_t>(get(unit * kUnit + static_cast<std::uint32_t>(which)));
    }
    void set_link(std::uint32_t unit, int which, std::uint32_t to) {
        set(unit * kUnit + static_cast<std::uint32_t>(which), to);
    }
    static std::uint32_t bin_of(std::uint32_t units) {
        return units < kMaxUnits ? units : kMaxUnits;
    }
    void put_free(std::uint32_t first, std::uint32_t units, bool released);
    void take_free(std::uint32_t first);

    ReservedArray<std::atomic<std::uint64_t>> words_;
    /// Of a used extent: whose, at every unit. Of a free one: kFree | its size, at its first and
    /// last unit.
    ReservedArray<std::uint32_t> owners_;
    std::array<std::uint32_t, kMaxUnits + 1> bins_{};  // lists of free extents by size
    std::array<std::uint64_t, kMaxUnits / 64 + 1> filled_{};
    std::uint32_t end_;           // of the address space
    std::uint32_t top_ = 1;       // units from here on are free and in no bin
    std::uint32_t touched_ = 1;   // units from here on cost no memory
    std::uint32_t released_ = 0;  // units below touched_ that cost none
    std::uint32_t used_ = 0;
};

}  // namespace stator::index
