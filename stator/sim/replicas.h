#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <vector>

#include "stator/replicas/journal.h"
#include "stator/replicas/peer_table.h"
#include "stator/router/router.h"
#include "stator/sim/event_queue.h"

namespace stator::sim {

constexpr std::size_t kMostReplicas = 16;

/// How many routers share the traffic, and how well they hear of each other.
struct ReplicaOptions {
    std::uint32_t replicas = 1;
    bool share = true;        ///< tell each other what they book
    double message_loss = 0;  ///< share of messages that don't come, for each receiver
    std::chrono::nanoseconds message_delay = std::chrono::milliseconds(1);
};

/// Several routers of the same ranks on virtual time, each with its own bookings and what its peers
/// tell of theirs over a channel that loses and delays. With one it is a router and nothing else.
/// A booking's id has its replica in the upper bits. Not thread-safe.
class Replicas {
  public:
    using Nanos = router::Nanos;
    /// The last booking of each replica that a worker has seen.
    using Seen = std::array<std::uint64_t, kMostReplicas>;

    Replicas(const ReplicaOptions& options, const router::PolicyOptions& policy,
             std::uint64_t seed);

    [[nodiscard]] const router::Router& front() const { return replicas_.front()->router; }
    /// Something that all of them learn.
    template <typename Each>
    void for_each(Each&& each) {
        for (auto& replica : replicas_) each(replica->router);
    }
    void on_report(router::RankIndex rank, const protocol::LoadReport& load, const Seen& seen);
    /// The rank's name is known to all; bookings that waited for it are entered.
    void ranks_changed();

    /// At the replica that this request came to, chosen by its index.
    [[nodiscard]] Result<router::Decision> book(std::uint64_t index,
                                                const router::RouteRequest& request, Nanos now);
    void on_first_token(router::BookingId booking, std::uint32_t cached_tokens, Nanos now);
    void on_handed_over(router::BookingId booking, Nanos now);
    void on_end(router::BookingId booking, Nanos now);
    static void note_seen(Seen& seen, router::BookingId booking);

    /// When run() is to be called next, if it is.
    [[nodiscard]] std::optional<Nanos> next() const;
    /// Sends and delivers what is due.
    void run(Nanos now);
    [[nodiscard]] replicas::PeerCounters counters() const;

  private:
    struct Replica {
        Replica(const router::PolicyOptions& policy, std::uint64_t seed) : router(policy, seed) {}
        replicas::Journal journal;
        router::Router router;
        replicas::PeerTable peers{router};
        bool flushes = false;
    };
    struct Due {
        enum class Kind : std::uint8_t { kFlush, kTick, kMessage };
        Kind kind = Kind::kTick;
        std::uint32_t replica = 0;  ///< that flushes, ticks, or gets the message
        std::uint32_t from = 0;
        std::shared_ptr<const replicas::Message> message;
    };

    void flush_soon(std::uint32_t replica, Nanos now);
    void send(std::uint32_t from, std::vector<replicas::Message>& messages, Nanos now);
    void deliver(const Due& due, Nanos now);
    void ask(std::uint32_t replica, std::vector<replicas::Message>& out, Nanos now);

    ReplicaOptions options_;
    std::uint64_t seed_;
    std::mt19937_64 random_;  ///< of losses
    std::vector<std::unique_ptr<Replica>> replicas_;
    EventQueue<Due> due_;
};

}  // namespace stator::sim
