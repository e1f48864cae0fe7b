#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "stator/index/prefix_index.h"

namespace stator::index {

/// What a PrefixIndex must answer, written as plainly as possible: a set of blocks for each rank
/// and memory.
class IndexModel {
  public:
    explicit IndexModel(std::size_t max_blocks_per_rank) : limit_(max_blocks_per_rank) {}

    void add_rank(RankSlot rank) { ranks_[rank.value] = {}; }
    void remove_rank(RankSlot rank) { ranks_.erase(rank.value); }
    void stored(RankSlot rank, protocol::KvTier tier, std::span<const tokens::SequenceHash> blocks);
    void removed(RankSlot rank, protocol::KvTier tier,
                 std::span<const tokens::SequenceHash> blocks);
    void cleared(RankSlot rank) { ranks_[rank.value] = {}; }
    void predict(RankSlot rank, std::span<const tokens::SequenceHash> blocks, TimePoint expires_at);
    void expire(TimePoint now);

    [[nodiscard]] std::uint32_t device_depth(RankSlot rank,
                                             std::span<const tokens::SequenceHash> blocks) const;
    [[nodiscard]] std::uint32_t any_depth(RankSlot rank,
                                          std::span<const tokens::SequenceHash> blocks) const;
    [[nodiscard]] std::size_t held(RankSlot rank) const;  ///< predictions left out
    [[nodiscard]] std::set<std::uint64_t> blocks(RankSlot rank, protocol::KvTier tier) const;

  private:
    struct Rank {
        std::array<std::set<std::uint64_t>, 3> tiers;
        std::map<std::uint64_t, TimePoint> predicted;
        [[nodiscard]] std::size_t total() const {
            return tiers[0].size() + tiers[1].size() + tiers[2].size() + predicted.size();
        }
        [[nodiscard]] bool device(std::uint64_t b) const {
            return tiers[0].contains(b) || predicted.contains(b);
        }
    };
    std::size_t limit_;
    std::map<std::uint32_t, Rank> ranks_;
};

/// What a random history looks like.
struct HistoryShape {
    std::uint32_t ranks = 6;
    std::uint32_t longest = 60;      ///< blocks of a request
    std::uint32_t fork_percent = 5;  ///< how often a request leaves the common path at a block
    bool lower_tiers = true;
    bool predictions = true;
    /// The index has less room than the history needs: answers may be too small, never too large.
    bool lossy = false;
    int steps = 600;
};

/// Drives an index and the model with the same random events and compares every answer. What
/// differed, or nothing. A subject is a PrefixIndex or has its functions.
template <typename Subject>
std::optional<std::string> find_difference(Subject& index, const IndexOptions& options,
                                           const HistoryShape& shape, std::uint64_t seed);

}  // namespace stator::index

#include "stator/index/index_model_inl.h"
