#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "stator/replicas/messages.h"
#include "stator/router/router.h"

namespace stator::replicas {

struct PeerTableOptions {
    /// A peer of which nothing is heard for so long is gone, and its bookings with it.
    Nanos gone_after = std::chrono::seconds(3);
    /// Between two asks of one peer, doubling up to the second while it does not get better.
    Nanos ask_again = std::chrono::milliseconds(100);
    Nanos ask_again_most = std::chrono::seconds(2);
    std::size_t max_peers = 64;
    std::size_t max_bookings = 65'536;  ///< of one peer; more are not taken up
    std::size_t max_missing = 256;      ///< deltas; more, and all that is live is asked for
};

struct PeerCounters {
    std::uint64_t deltas = 0;
    std::uint64_t duplicates = 0;
    std::uint64_t missed = 0;         ///< deltas that were not there when a later one was
    std::uint64_t repaired = 0;       ///< of these, those that came later, and parts that were read
    std::uint64_t mismatches = 0;     ///< digests that say otherwise than what is known here
    std::uint64_t refused = 0;        ///< messages and bookings beyond what is allowed
    std::uint64_t peers_gone = 0;     ///< that were not heard any more, or said goodbye
    std::uint64_t bookings_lost = 0;  ///< dropped with them
};

/// The bookings of other routers of the pool, as they tell of them, entered in this one. Loss,
/// repetition, reordering and restarts end in what the peer has: a gap is asked for, a digest that
/// does not fit has its ranges asked for. Without I/O or clock; lives on its router's thread.
class PeerTable {
  public:
    /// The router must outlive it.
    explicit PeerTable(router::Router& router, PeerTableOptions options = {})
        : router_(router), options_(options) {}
    PeerTable(const PeerTable&) = delete;
    PeerTable& operator=(const PeerTable&) = delete;

    /// A message of a peer; asks are passed over (Journal::answer() is for them).
    void take(ReplicaId from, const Message& message, Nanos now);
    /// It lives, though it says nothing of this pool.
    void heard(ReplicaId from, Nanos now);
    /// What peers are to be asked for now.
    void asks(Nanos now, std::vector<Ask>& out);
    /// Drops those of whom nothing was heard for long.
    void expire(Nanos now);
    /// It has gone.
    void drop(ReplicaId peer, Nanos now);
    /// The router has other ranks: bookings that waited for theirs are entered.
    void ranks_changed();

    [[nodiscard]] const PeerCounters& counters() const { return counters_; }
    struct PeerState {
        ReplicaId id;
        std::size_t bookings = 0;
        std::size_t placeless = 0;  ///< of these, on ranks that this router does not have
        std::uint64_t sequence = 0;
        std::size_t missing = 0;  ///< deltas
        bool in_step = false;     ///< the last digest said what is known here
        Nanos heard_at{0};
    };
    [[nodiscard]] std::vector<PeerState> peers() const;
    [[nodiscard]] std::size_t size() const { return peers_.size(); }

    /// A peer's live bookings as they are known here, by number.
    struct Known {
        std::uint64_t number = 0;
        bool prefilled = false;
        bool operator==(const Known&) const = default;
    };
    [[nodiscard]] std::vector<Known> known(ReplicaId peer) const;

  private:
    struct Booking {
        router::BookingId local;                     ///< 0: its rank is not there
        std::shared_ptr<const SharedBooking> waits;  ///< while it is so
        bool prefilled = false;
        Nanos at{0};
    };
    struct Peer {
        bool started = false;  ///< something of this pool came
        bool in_step = false;
        bool full = false;  ///< bookings were refused: digests can't fit
        std::uint64_t sequence = 0;
        std::set<std::uint64_t> missing;
        std::vector<NumberRange> doubtful;
        std::map<std::uint64_t, Booking> bookings;
        Nanos heard_at{0};
        Nanos ask_at{0};
        Nanos ask_wait{0};
    };

    void on_delta(Peer& peer, const Delta& delta);
    void on_digest(Peer& peer, const Digest& digest);
    void on_part(Peer& peer, const Part& part, Nanos now);
    void advance(Peer& peer, std::uint64_t sequence);
    void doubt_all(Peer& peer);
    void add(Peer& peer, const std::shared_ptr<const SharedBooking>& booking, bool prefilled,
             Nanos at);
    void set_prefilled(Booking& booking, std::uint32_t cached_tokens, bool learn, Nanos at);
    void end(Booking& booking, Nanos at);
    void end_all(Peer& peer, Nanos now);

    router::Router& router_;
    PeerTableOptions options_;
    std::map<ReplicaId, Peer> peers_;
    PeerCounters counters_;
};

}  // namespace stator::replicas
