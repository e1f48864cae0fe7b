#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/events/kv_batch.h"
#include "stator/events/message.h"
#include "stator/events/subscriber.h"

namespace stator::events {

/// Where a rank stands:
///
///            snapshot (or sequence 0 or 1 seen)
///    syncing ─────────────────────────────────► live
///      ▲  ▲                                     │  ▲
///      │  └──── a batch that can't be read ─────┤  │ the hole is filled
///      │                                        │  │ (range, or the messages themselves)
///      │   range refused or lost          hole  ▼  │
///      └─────────────────────────────────────── gap
///
/// From everywhere to syncing: a new incarnation. Messages that can't be applied yet are kept,
/// within bounds, in syncing and gap.
enum class FollowState : std::uint8_t { kSyncing, kLive, kGap };
std::string_view to_string(FollowState state);

/// What the follower wants from the publisher's worker; on_answer() takes it, once per ticket.
struct Fetch {
    std::uint64_t ticket = 0;
    bool snapshot = false;
    std::uint32_t rank = 0;
    std::uint64_t from = 0;  ///< of a range, both included
    std::uint64_t to = 0;
};

struct FollowerOptions {
    std::chrono::milliseconds silent_after{5'000};
    std::chrono::milliseconds fetch_timeout{10'000};
    std::chrono::milliseconds first_back_off{20};  ///< doubled up to …
    std::chrono::milliseconds last_back_off{5'000};
    /// Messages kept per rank while a fetch is under way; more are dropped and fetched later.
    std::size_t held_messages = 4096;
    std::size_t held_bytes = std::size_t{4} * 1024 * 1024;
};

/// The subscriber's half of the protocol without its sockets: bytes, answers and time in; calls of
/// the receiver and fetches out (appended to `out`). One thread at a time; the receiver is called
/// from within. Whatever is lost, repeated or reordered, the receiver's state becomes the
/// publisher's once messages or heartbeats come through and fetches succeed.
class KvFollower {
  public:
    using Out = std::vector<Fetch>;

    KvFollower(protocol::Incarnation incarnation, std::uint32_t ranks, FollowerOptions options,
               KvReceiver& receiver, TimePoint now);

    void on_message(std::string_view bytes, TimePoint now, Out& out);
    void on_answer(std::uint64_t ticket, const Result<std::string>& answer, TimePoint now,
                   Out& out);
    /// Retries, time-outs, silence; call it every few tens of milliseconds.
    void on_time(TimePoint now, Out& out);

    [[nodiscard]] const SubscriptionStats& stats() const { return stats_; }
    [[nodiscard]] FollowState state(std::uint32_t rank) const { return ranks_[rank].state; }
    [[nodiscard]] std::uint64_t applied(std::uint32_t rank) const { return ranks_[rank].applied; }
    [[nodiscard]] protocol::Incarnation incarnation() const { return incarnation_; }

  private:
    struct BackOff {
        TimePoint next;
        std::chrono::milliseconds wait{0};
    };
    struct Rank {
        FollowState state = FollowState::kSyncing;
        std::uint64_t applied = 0;
        std::uint64_t seen = 0;  // the publisher is at least here
        bool heard = false;      // anything of this incarnation
        bool silent = false;
        bool told_live = false;
        TimePoint last_heard;
        TimePoint live_since;
        std::map<std::uint64_t, std::string> held;  // payloads by sequence
        std::size_t held_bytes = 0;
        Fetch fetch;  // ticket 0: none under way
        TimePoint fetch_ends;
        BackOff ranges;
        BackOff snapshots;
    };

    bool take_incarnation(const Message& m);
    void adopt(protocol::Incarnation incarnation);
    void on_heartbeat(std::uint32_t rank, TimePoint now);
    void on_batch(const Message& m, TimePoint now);
    void hold(Rank& r, const Message& m);
    bool apply(std::uint32_t rank, std::string_view payload);
    bool apply_events(std::uint32_t rank, std::string_view payload, bool count);
    bool apply_next(std::uint32_t rank, std::string_view payload, TimePoint now);
    void settle(std::uint32_t rank, TimePoint now);
    void to_syncing(std::uint32_t rank);
    void tell(std::uint32_t rank, bool is_live);
    void want(std::uint32_t rank, TimePoint now, Out& out);
    Result<void> take_snapshot(std::uint32_t rank, std::string_view bytes, TimePoint now);
    Result<void> take_range(std::uint32_t rank, std::string_view bytes, TimePoint now);
    void failed(std::uint32_t rank, const Error& why);

    protocol::Incarnation incarnation_;
    std::deque<protocol::Incarnation> retired_;
    FollowerOptions options_;
    KvReceiver& receiver_;
    std::vector<Rank> ranks_;
    KvScratch scratch_;
    SubscriptionStats stats_;
    std::uint64_t tickets_ = 0;
};

}  // namespace stator::events
