#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "stator/engine/mock/core.h"
#include "stator/index/prefix_index.h"
#include "stator/router/route.h"
#include "stator/sim/event_queue.h"
#include "stator/sim/fleet.h"
#include "stator/sim/scenario.h"

namespace stator::sim {

/// Where prefixes are, as the router knows it: the index of real traffic, one for each role that
/// computes prompts, fed by the changes of the workers' caches as events. They take
/// `events_delay`, in order for each worker. What faults do to them:
///   drop-events        lost, and noticed by the gap: fetched again when the next one comes
///   lose-events        lost before they had a number: nobody notices, until a snapshot is taken
///   changed-hash-seed  other names for blocks
/// Not thread-safe.
class CacheIndex {
  public:
    CacheIndex(const Scenario& scenario, Fleet& fleet, std::uint64_t seed);

    /// Workers that the fleet has made since.
    void add_workers();
    /// Nothing of it is found any more.
    void remove_worker(std::uint32_t worker);
    /// Sends what has changed in the worker's cache.
    void take_changes(std::uint32_t worker, Nanos now);

    /// How far a prefix is where, as known now. Replaces what is in `out`.
    void look_up(protocol::Role role, std::span<const tokens::SequenceHash> blocks, Nanos now,
                 std::vector<router::Overlap>& out);
    [[nodiscard]] bool follows(std::uint32_t worker) const {
        return worker < sources_.size() && sources_[worker].slot.has_value();
    }

    /// Events of the worker, since the last call, that did not fit those before them.
    [[nodiscard]] std::uint64_t take_orphans(std::uint32_t worker);

    /// Asks the worker for a snapshot of what its events said, lost ones included; it comes as
    /// late as an event.
    void resync(std::uint32_t worker, Nanos now);
    /// Workers whose snapshots have come since the last call.
    [[nodiscard]] std::vector<std::uint32_t> take_resynced();

  private:
    struct Blocks {
        protocol::KvTier tier = protocol::KvTier::kDevice;
        std::optional<tokens::SequenceHash> parent;
        std::vector<tokens::SequenceHash> names;
    };
    struct Message {
        enum class Kind : std::uint8_t { kStored, kRemoved, kCleared, kSnapshot };
        Kind kind = Kind::kStored;
        std::uint32_t worker = 0;
        bool whole = false;  ///< kSnapshot: it says all that is there; else nothing was lost
        std::vector<Blocks> blocks;
    };
    struct Source {
        std::optional<index::RankSlot> slot;   ///< none: not followed
        std::optional<index::RankSlot> truth;  ///< in `told_`
        std::uint64_t orphans = 0;
        std::vector<Message> dropped;              ///< to be fetched again
        Nanos not_before{0};                       ///< nothing of it arrives earlier
        std::unique_ptr<std::minstd_rand> chance;  ///< of losing events
    };
    struct Pool {
        std::unique_ptr<index::PrefixIndex> index;  ///< null: nobody has this role
        std::uint32_t block_tokens = 0;
        std::vector<std::uint32_t> workers;  ///< by slot
    };

    /// Where the router decides whether a prompt gets a worker of its own, all that compute some
    /// are one pool.
    [[nodiscard]] Pool& pool_of(protocol::Role role) {
        if (scenario_.splits() && role != protocol::Role::kEncode) {
            role = protocol::Role::kAggregated;
        }
        return pools_[std::to_underlying(role)];
    }
    [[nodiscard]] Pool& pool_of(std::uint32_t worker) {
        return pool_of(fleet_.group_of(worker).role);
    }
    void open_pools();
    [[nodiscard]] bool lost(Source& source, double probability) const;
    void tell(Message& message, Nanos now);
    void send(Message& message, Nanos at, Nanos now);
    void apply(const Message& message);
    void deliver(Nanos now);
    static void write(index::PrefixIndex& index, index::RankSlot slot, const Message& message);

    const Scenario& scenario_;
    Fleet& fleet_;
    std::uint64_t seed_;
    std::array<Pool, 5> pools_;
    std::unique_ptr<index::PrefixIndex> told_;  ///< what the events of those who lie said
    std::vector<Source> sources_;
    EventQueue<std::uint32_t> on_their_way_;  ///< places in `messages_`
    std::vector<Message> messages_;
    std::vector<std::uint32_t> free_;
    std::vector<std::uint32_t> resynced_;
    std::vector<engine::mock::KvChange> changes_;
    Message next_;  ///< kept for its memory
    index::Overlap found_;
    std::uint32_t lookups_ = 0;
};

}  // namespace stator::sim
