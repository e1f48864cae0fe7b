#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "stator/base/strong.h"

namespace stator::index {

/// A rank's place in an index, from add_rank() until remove_rank(); afterwards another rank may get
/// it. Small numbers: bit positions.
using RankSlot = Strong<std::uint32_t, struct RankSlotTag>;

struct RankDepth {
    RankSlot rank;
    std::uint32_t depth = 0;  ///< leading blocks of the request that the rank holds
    bool operator==(const RankDepth&) const = default;
};

/// How many leading blocks of a request each rank holds, in one kind of memory: ranks one by one,
/// and groups of ranks that hold equally many as sets of bits, so that thousands of holders of a
/// system prompt cost a few hundred bytes. A rank that is in none holds none.
class Depths {
  public:
    /// O(groups + single ranks).
    [[nodiscard]] std::uint32_t of(RankSlot rank) const;
    [[nodiscard]] std::uint32_t deepest() const { return deepest_; }
    [[nodiscard]] std::size_t holders() const { return holders_; }

    /// Calls take(RankDepth) for every holder, in no order.
    template <typename Take>
    void for_each(Take take) const {
        for (const RankDepth& one : singles_) take(one);
        for (const Group& group : groups_) {
            for (std::uint32_t w = 0; w < group.words; ++w) {
                for (std::uint64_t bits = words_[group.at + w]; bits != 0; bits &= bits - 1) {
                    take(RankDepth{RankSlot((group.first + w) * 64 +
                                            static_cast<std::uint32_t>(std::countr_zero(bits))),
                                   group.depth});
                }
            }
        }
    }
    /// The holders with the most blocks into `out`, most first, then by slot; as many as fit. The
    /// number written.
    std::size_t top(std::span<RankDepth> out) const;

  private:
    friend class Lookup;
    struct Group {
        std::uint32_t depth;
        std::uint32_t first;  // word of slots
        std::uint32_t words;
        std::uint32_t at;  // in words_
    };
    void clear();
    void add(std::uint32_t slot, std::uint32_t depth);
    void add_bits(std::span<const std::uint64_t> bits, std::uint32_t first_word,
                  std::uint32_t depth);

    std::vector<RankDepth> singles_;
    std::vector<Group> groups_;
    std::vector<std::uint64_t> words_;
    std::uint32_t deepest_ = 0;
    std::size_t holders_ = 0;
};

/// The answer to a lookup. Made once and used again: after the first few lookups nothing is
/// allocated. Belongs to one reader.
class Overlap {
  public:
    /// Blocks in device memory, predicted ones included.
    [[nodiscard]] const Depths& device() const { return device_; }
    /// Blocks in device, host or disk memory, predicted ones included; for each rank at least as
    /// many as device().
    [[nodiscard]] const Depths& any() const { return lower_tiers_ ? any_ : device_; }
    /// Engines of this pool keep KV that the index does not follow (groups that hold part of the
    /// context): they can reuse at most so many blocks.
    [[nodiscard]] bool upper_bound() const { return upper_bound_; }

  private:
    friend class Lookup;
    Depths device_;
    Depths any_;
    bool lower_tiers_ = false;
    bool upper_bound_ = false;
    // Which ranks are still there at the current depth, and which hold the current run.
    std::vector<std::uint64_t> alive_[2];
    std::vector<std::uint64_t> cover_[2];
    std::vector<RankDepth> partial_[2];
};

}  // namespace stator::index
