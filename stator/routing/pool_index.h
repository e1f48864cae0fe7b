#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "stator/base/clock.h"
#include "stator/events/subscriber.h"
#include "stator/index/prefix_index.h"
#include "stator/router/route.h"

namespace stator::routing {

/// The index of a pool with a lock for its writers, and which of the router's ranks each of its
/// slots stands for. Any thread.
class PoolIndex {
  public:
    explicit PoolIndex(const index::IndexOptions& options);

    /// Nothing where there is no more room: such a rank is never found.
    [[nodiscard]] std::optional<index::RankSlot> add_rank(router::RankIndex rank);
    void remove_rank(index::RankSlot slot);
    /// PrefixIndex::orphans_of() after it.
    std::uint64_t apply(index::RankSlot slot, const protocol::KvEvent& event);
    void clear(index::RankSlot slot);
    /// A request of the tenant was sent there: its blocks will be, for an engine that tells
    /// nothing.
    void predict(index::RankSlot slot, std::span<const tokens::SequenceHash> blocks,
                 TimePoint expires_at, std::uint64_t tenant);
    /// Some upkeep where it is due and nobody writes; true where it was.
    bool tidy(TimePoint now);

    /// What each rank holds of a prefix; replaces what is in `out`. True: that is an upper bound of
    /// what they can reuse (Overlap::upper_bound()). Uses memory of the thread.
    bool lookup(std::span<const tokens::SequenceHash> blocks,
                std::vector<router::Overlap>& out) const;

    struct Size {
        std::size_t blocks = 0;  ///< different ones
        std::size_t bytes = 0;
        index::IndexCounters counters;
    };
    [[nodiscard]] Size size() const;
    [[nodiscard]] std::size_t blocks_of(index::RankSlot slot) const;

    /// Blocks in a row in one memory of a rank.
    struct Run {
        protocol::KvTier tier = protocol::KvTier::kDevice;
        std::vector<tokens::SequenceHash> blocks;
    };
    /// What a rank holds, from the `skip`th block on, at most `limit` of them; the order stays
    /// while nothing changes. Waits for the writer, and makes it wait: for people.
    [[nodiscard]] std::vector<Run> dump(index::RankSlot slot, std::size_t skip,
                                        std::size_t limit) const;

  private:
    mutable std::mutex mutex_;  ///< of writers
    index::PrefixIndex index_;
    /// By slot; kNoRank where it is free. Read without the lock.
    std::unique_ptr<std::atomic<router::RankIndex>[]> ranks_;
    std::atomic<std::int64_t> tidied_ns_{0};
};

/// Writes one worker's events into an index.
class IndexWriter final : public events::KvReceiver {
  public:
    /// `slots`: by the worker's ranks.
    IndexWriter(std::shared_ptr<PoolIndex> index, std::vector<std::optional<index::RankSlot>> slots)
        : index_(std::move(index)),
          slots_(std::move(slots)),
          live_(slots_.size()),
          orphans_(slots_.size()) {}

    void apply(std::uint32_t rank, const protocol::KvEvent& event) override;
    void reset(std::uint32_t rank) override;
    void live(std::uint32_t rank, bool is_live, std::uint64_t sequence) override;

    /// Any thread: all that the worker's rank holds is known.
    [[nodiscard]] bool is_live(std::uint32_t rank) const {
        return live_[rank].load(std::memory_order_relaxed);
    }
    /// Any thread: live events of the rank, so far, that did not fit those before them.
    [[nodiscard]] std::uint64_t orphans(std::uint32_t rank) const {
        return orphans_[rank].count.load(std::memory_order_relaxed);
    }

  private:
    std::shared_ptr<PoolIndex> index_;
    std::vector<std::optional<index::RankSlot>> slots_;
    struct Orphans {
        std::uint64_t last = 0;  ///< as the index counts them
        std::atomic<std::uint64_t> count{0};
    };
    std::vector<std::atomic<bool>> live_;
    std::vector<Orphans> orphans_;
};

}  // namespace stator::routing
