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
    explicit IndexModel(const IndexOptions& options)
        : limit_(options.max_blocks_per_rank), quota_(options.max_predicted_per_tenant) {}

    void add_rank(RankSlot rank) { ranks_[rank.value] = {}; }
    void remove_rank(RankSlot rank) { ranks_.erase(rank.value); }
    void stored(RankSlot rank, protocol::KvTier tier, std::span<const tokens::SequenceHash> blocks);
    void removed(RankSlot rank, protocol::KvTier tier,
                 std::span<const tokens::SequenceHash> blocks);
    void cleared(RankSlot rank) { ranks_[rank.value] = {}; }
    void predict(RankSlot rank, std::span<const tokens::SequenceHash> blocks, TimePoint expires_at,
                 std::uint64_t tenant);
    void expire(TimePoint now);

    [[nodiscard]] std::uint32_t device_depth(RankSlot rank,
                                             std::span<const tokens::SequenceHash> blocks) const;
    [[nodiscard]] std::uint32_t any_depth(RankSlot rank,
                                          std::span<const tokens::SequenceHash> blocks) const;
    [[nodiscard]] std::size_t held(RankSlot rank) const;  ///< predictions left out
    [[nodiscard]] std::set<std::uint64_t> blocks(RankSlot rank, protocol::KvTier tier) const;
    [[nodiscard]] std::uint64_t quota_blocks() const { return quota_blocks_; }

  private:
    struct Guess {
        TimePoint expires_at;
        std::uint64_t tenant = 0;
        std::uint64_t call = 0;
        std::size_t place = 0;  ///< in its request
    };
    struct Rank {
        std::array<std::set<std::uint64_t>, 3> tiers;
        std::map<std::uint64_t, Guess> predicted;
        [[nodiscard]] std::size_t total() const {
            return tiers[0].size() + tiers[1].size() + tiers[2].size() + predicted.size();
        }
        [[nodiscard]] bool device(std::uint64_t b) const {
            return tiers[0].contains(b) || predicted.contains(b);
        }
    };
    [[nodiscard]] std::size_t predicted_of(std::uint64_t tenant) const;
    void end_oldest(std::uint64_t tenant);

    std::size_t limit_;
    std::size_t quota_;
    std::map<std::uint32_t, Rank> ranks_;
    std::uint64_t calls_ = 0;
    std::uint64_t quota_blocks_ = 0;
};

/// What a random history looks like.
struct HistoryShape {
    std::uint32_t ranks = 6;
    std::uint32_t longest = 60;      ///< blocks of a request
    std::uint32_t fork_percent = 5;  ///< how often a request leaves the common path at a block
    bool lower_tiers = true;
    bool predictions = true;
    std::uint32_t tenants = 1;  ///< who predicts
    /// The index has less room than the history needs: answers may be too small, never too large.
    /// The model then knows no quota: of a tenant some of whose blocks were evicted others stay.
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
