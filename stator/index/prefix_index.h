#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/index/block_store.h"
#include "stator/index/head_table.h"
#include "stator/index/holder_pool.h"
#include "stator/index/holders.h"
#include "stator/index/locator.h"
#include "stator/index/overlap.h"
#include "stator/index/predictions.h"
#include "stator/index/run_table.h"
#include "stator/protocol/kv_event.h"
#include "stator/tokens/token.h"

namespace stator::index {

/// The index follows dense groups. A rank that stores sparse ones makes depths upper bounds.
using protocol::KvGroup;

struct IndexOptions {
    std::uint32_t max_ranks = 4096;  ///< at a time, at most 2^24 - 1
    /// Different blocks in all, at most 2^27. Address space for them is reserved at once (about 30
    /// bytes each), memory as they come.
    std::size_t max_blocks = std::size_t{1} << 24;
    /// Of one rank, a block counted once for each memory: what a rank announces beyond is not
    /// taken.
    std::size_t max_blocks_per_rank = std::size_t{1} << 22;
    /// Beyond, runs are dropped that were stored long ago (see PrefixIndex).
    std::size_t max_bytes = std::size_t{4} << 30;
    /// Predicted blocks of one tenant, a block counted once for each rank; 0 = no quota.
    std::size_t max_predicted_per_tenant = 0;
};

/// About so many blocks fit into what `options` allow, in runs of some length.
[[nodiscard]] constexpr std::size_t expected_capacity(const IndexOptions& options) {
    constexpr std::size_t kBytesPerBlock = 32;
    return std::min(options.max_blocks, options.max_bytes / kBytesPerBlock);
}

/// Blocks in a row, each the child of the one before, in one memory of a rank.
struct HeldBlocks {
    protocol::KvTier tier = protocol::KvTier::kDevice;
    std::span<const tokens::SequenceHash> blocks;
};

/// What the index did that its caller may want to know. Counts since the start.
struct IndexCounters {
    std::uint64_t stored_blocks = 0;    ///< as announced
    std::uint64_t removed_blocks = 0;   ///< as announced
    std::uint64_t stored_again = 0;     ///< the rank held them already
    std::uint64_t removed_unknown = 0;  ///< the rank did not hold them
    std::uint64_t unknown_parents = 0;  ///< stored runs whose parent is not in the index
    std::uint64_t sparse_blocks = 0;    ///< of groups that are not followed
    std::uint64_t refused_blocks = 0;  ///< over a bound: not in the index, though the rank has them
    std::uint64_t evicted_blocks = 0;  ///< dropped to stay within `max_bytes` or `max_blocks`
    std::uint64_t quota_blocks = 0;  ///< predictions that a tenant's quota ended or did not let in
    std::uint64_t lost_blocks = 0;   ///< can't be removed any more: hashes made to collide
    std::uint64_t ignored_events = 0;  ///< of ranks that are not there
};

/// Which ranks of a pool hold which blocks, and so how much of a request's prefix each has. Names
/// blocks by sequence hash, which names the whole prefix: a block needs no parent to be indexed.
///
/// Exact: after any events, lookup() gives for each rank the number of leading blocks of the
/// request that its events say it holds, provided that the blocks of each stored run are a chain
/// (each the child of the one before), hashes of different prefixes differ, and nothing was refused
/// or evicted. What was refused or evicted makes answers too small, never too large.
///   stored again: no change. Removed and not held: no change. Removed in the middle: depth ends
///   there, what follows stays and counts again once the hole is filled. Parent unknown: as if it
///   were known. All of it is counted (counters()).
///
/// Threads: one writer at a time calls what is not const; any number of readers call lookup()
/// meanwhile. They write nothing that is shared and never wait for more than the change of one run.
/// An answer is exact for a time when nothing changes; beside changes each run of blocks is seen as
/// it was at some moment of the lookup. A slot that is given to another rank during a lookup may be
/// answered with blocks of both.
///
/// Bounds: ranks, blocks, blocks per rank, bytes. When bytes or blocks run out, whole runs go: of
/// eight taken at random, the one that was longest without a stored event, held by whomever. The
/// affected ranks' later removals of them count as unknown; evicted() says which to ask for a
/// snapshot.
///
/// No clock, no thread: time comes with the calls; whoever owns it calls tidy() now and then.
class PrefixIndex {
  public:
    explicit PrefixIndex(IndexOptions options = {});
    PrefixIndex(const PrefixIndex&) = delete;
    PrefixIndex& operator=(const PrefixIndex&) = delete;

    // --- the writer

    /// kExhausted if there are max_ranks.
    [[nodiscard]] Result<RankSlot> add_rank();
    /// From now on no lookup finds it. Its memory is freed by tidy(); then its slot is used again.
    void remove_rank(RankSlot rank);

    /// Blocks in a row; `parent` is the one before the first (none = the first is a root).
    void stored(RankSlot rank, protocol::KvTier tier, std::optional<tokens::SequenceHash> parent,
                std::span<const tokens::SequenceHash> blocks, KvGroup group = KvGroup::kDense);
    void removed(RankSlot rank, protocol::KvTier tier, std::span<const tokens::SequenceHash> blocks,
                 KvGroup group = KvGroup::kDense);
    /// Blocks of an event that comes soon: fetches what it will need into the processor's cache.
    /// Worth it for events of few blocks, a few events ahead.
    void prefetch(std::span<const tokens::SequenceHash> blocks) const;
    /// Nothing is left in any memory; predictions go, too.
    void cleared(RankSlot rank);
    void apply(RankSlot rank, const protocol::KvEvent& event);
    /// A snapshot: the rank holds these, nothing else.
    void replace(RankSlot rank, std::span<const HeldBlocks> blocks);

    /// The rank is expected to hold these in device memory until `expires_at`: a request was sent
    /// there. Counts as held until then, or until an event speaks of the block: stored confirms it,
    /// removed ends it. Predicting again prolongs, never shortens. Not for blocks that it holds in
    /// device memory already.
    ///   A predicted block belongs to the tenant (0 = those without one) that predicted it last:
    /// who uses a prefix that several share has it in its own quota. Beyond
    /// `max_predicted_per_tenant` the tenant's own oldest predictions end, earlier calls first and
    /// of one call the last blocks first, and of one call no more than so many are taken; all of it
    /// is counted (`quota_blocks`). Others' predictions never end by it.
    void predict(RankSlot rank, std::optional<tokens::SequenceHash> parent,
                 std::span<const tokens::SequenceHash> blocks, TimePoint expires_at,
                 std::uint64_t tenant = 0);

    /// Ends predictions whose time is over, frees what removed ranks held and gives memory back,
    /// looking at about `budget` runs. True if nothing is left to do.
    bool tidy(TimePoint now, std::size_t budget = 1024);

    /// Everything a rank holds, as replace() takes it; predictions are left out. The spans are
    /// valid during the call.
    void export_rank(RankSlot rank, const std::function<void(const HeldBlocks&)>& take) const;

    [[nodiscard]] std::size_t blocks_of(RankSlot rank) const;  ///< each memory counts
    [[nodiscard]] std::uint64_t evicted_of(RankSlot rank) const;
    /// Events of its device memory that stored blocks after one that nobody holds. An engine keeps
    /// a block as long as its child is computed, so events before were lost. 0 once blocks of the
    /// rank were refused or evicted here.
    [[nodiscard]] std::uint64_t orphans_of(RankSlot rank) const;
    /// Predicted blocks that belong to the tenant, those of ranks included that are not yet freed.
    [[nodiscard]] std::size_t predicted_of(std::uint64_t tenant) const {
        return predictions_.owners().blocks_of(tenant);
    }
    /// Who has such; nothing is kept of others.
    [[nodiscard]] std::size_t predicting_tenants() const { return predictions_.owners().tenants(); }
    [[nodiscard]] std::size_t blocks() const { return locator_.size(); }  ///< different ones
    [[nodiscard]] std::size_t runs() const { return runs_.used(); }
    [[nodiscard]] const IndexCounters& counters() const { return counters_; }
    /// What it occupies, to a few percent; and what of it is in use. `max_bytes` bounds the latter.
    [[nodiscard]] std::size_t memory_bytes() const;
    [[nodiscard]] std::size_t used_bytes() const;

    // --- readers

    /// How many leading ones of `blocks` each rank holds. Replaces what is in `out`.
    void lookup(std::span<const tokens::SequenceHash> blocks, Overlap& out) const;

  private:
    friend class Lookup;
    struct Place {
        std::uint32_t run = 0;  // 0 = nowhere
        std::uint32_t offset = 0;
    };
    /// Blocks of one run that an event touched, before the change is written.
    struct Stretch {
        std::uint32_t run = 0;
        std::uint32_t begin = 0;
        std::uint32_t end = 0;
        std::uint32_t first = 0;  ///< of a prediction: which block of the request `begin` is
    };
    struct Guess {
        TimePoint expires_at;
        std::uint64_t tenant = 0;
        std::uint64_t call = 0;
    };
    enum class RankState : std::uint8_t { kFree, kIn, kLeaving };
    struct Rank {
        RankState state = RankState::kFree;
        bool sparse = false;
        std::size_t held[kWays] = {};
        std::uint64_t evicted = 0;
        std::uint64_t orphans = 0;
        bool refused = false;  ///< some of its blocks were
        /// Runs in which it has blocks, perhaps more than once, and some where it has none any
        /// more.
        std::vector<std::uint32_t> runs;
        std::size_t live_runs = 0;  // pairs of (run, way) with blocks
        Place last_stored;
        Place last_removed;
        [[nodiscard]] std::size_t all_held() const { return held[0] + held[1] + held[2] + held[3]; }
    };

    [[nodiscard]] Rank* rank_in(RankSlot rank);
    void set_alive(std::uint32_t slot, bool alive);

    // where blocks are
    [[nodiscard]] bool is_at(Place place, std::uint64_t hash) const;
    [[nodiscard]] Place locate(std::uint64_t hash) const;
    [[nodiscard]] bool unit_has(std::uint32_t unit, std::uint64_t hash, Place& place) const;
    [[nodiscard]] bool can_append(Place last, std::size_t more);
    std::size_t append_all(Place& last, std::span<const tokens::SequenceHash> blocks, Place& known);
    [[nodiscard]] Place start_run(std::uint64_t hash, std::size_t blocks);

    // events
    void store(std::uint32_t slot, std::uint32_t way, std::optional<tokens::SequenceHash> parent,
               std::span<const tokens::SequenceHash> blocks, const Guess& guess);
    [[nodiscard]] bool may_hold_more(std::uint32_t slot, std::uint32_t way, Place place) const;
    void hold(std::uint32_t slot, std::uint32_t way, const Stretch& stretch, const Guess& guess);
    [[nodiscard]] bool hold_predicted(std::uint32_t slot, const Stretch& stretch,
                                      const Guess& guess);
    [[nodiscard]] bool add_entry(std::uint32_t slot, std::uint32_t way, const Stretch& stretch);
    std::uint32_t take(std::uint32_t slot, std::uint32_t way, const Stretch& stretch);
    std::uint32_t take_entry(std::uint32_t slot, std::uint32_t way, const Stretch& stretch);
    void count_held(Rank& rank, std::uint32_t way, std::int64_t blocks);
    void know_new_run(std::uint32_t slot, std::uint32_t run);
    void shorten_run_list(std::uint32_t slot);

    // upkeep
    void after_removal(std::uint32_t run, const Stretch& stretch);
    void trim(std::uint32_t run);
    void free_run(std::uint32_t run);
    void close_gaps(std::uint32_t run);
    void drop_front(std::uint32_t run, std::uint32_t blocks, std::span<const Entry> entries);
    bool split(std::uint32_t run, std::uint32_t left_end, std::uint32_t right_begin,
               std::span<const Entry> entries);
    void know_run(std::uint32_t right_id, std::span<const Entry> before,
                  std::span<const Entry> left, std::span<const Entry> right);
    void part_shared_beginning(std::uint32_t run, std::uint32_t end);
    void forget_blocks(const Run& run, std::uint32_t begin, std::uint32_t end);
    void drop_rank_from(std::uint32_t run, std::uint32_t slot);
    std::size_t free_leaving(std::size_t budget);
    void expire(TimePoint now);
    void keep_within_quota(std::uint64_t tenant);
    bool evict_one(std::uint32_t except);
    void keep_within_bytes(std::uint32_t except);
    void grow_locator();
    bool rebuild_locator(std::size_t buckets);
    void insert_head(std::uint32_t run);
    void rebuild_heads();

    IndexOptions options_;
    BlockStore store_;
    Locator locator_;
    RunTable runs_;
    HeadTable heads_;
    HolderPool pool_;
    mutable Holders holders_;
    Predictions predictions_;
    std::vector<Rank> ranks_;
    std::vector<std::uint32_t> free_slots_;
    std::vector<std::uint32_t> leaving_;
    std::unique_ptr<std::atomic<std::uint64_t>[]> alive_;  // a bit for each slot
    std::atomic<std::uint32_t> alive_words_{0};            // that may have bits
    std::atomic<std::size_t> lower_blocks_{0};             // held in host or disk memory
    std::atomic<std::uint32_t> sparse_ranks_{0};
    bool out_of_room_ = false;  // why the last run could not be started
    std::size_t locator_stays_below_ = 0;
    std::uint32_t clock_ = 0;  // counts stored events
    std::uint64_t predict_calls_ = 0;
    std::uint64_t dice_ = 0x243f6a8885a308d3U;
    std::size_t rank_lists_ = 0;  // words of ranks' lists
    IndexCounters counters_;
    std::vector<tokens::SequenceHash> hashes_;  // of one event
};

}  // namespace stator::index
