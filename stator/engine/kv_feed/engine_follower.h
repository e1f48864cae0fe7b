#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/engine/kv_feed/kv_feed.h"

namespace stator::engine {

struct EngineFollowerOptions {
    bool has_replay = false;                          ///< the engine has a replay endpoint
    std::chrono::milliseconds replay_silence{5'000};  ///< after which a replay is asked for again
    std::uint32_t replay_tries = 3;                   ///< then it goes on without
    /// Messages kept while a replay is under way; when they are too many all are let go, and the
    /// hole that this leaves is asked for next.
    std::size_t held_messages = 4096;
    std::size_t held_bytes = std::size_t{16} * 1024 * 1024;
};

/// Follows the numbered messages of one engine's rank, without its sockets: messages, replays and
/// time in; our events out, and the wish for a replay.
///
///            end of the replay, or none can be had
///    syncing ─────────────────────────────────────► live
///      ▲  ▲                                         │  ▲
///      │  └── the hole is older than the replay ─┐  │  │ the hole is filled
///      │                                         │  ▼  │
///      └── the engine restarted ──────────────── gap ──┘
///
/// Numbers begin at 0 in each life of the engine. A number that was had already is either a
/// message that a replay brought first, or of a new life: the batch's own time tells them apart.
/// Where a hole can't be filled all that was known of the engine is let go (KvCleared), because a
/// removal may have been in it. One thread at a time.
class EngineFollower {
  public:
    enum class State : std::uint8_t { kSyncing, kLive, kGap };

    EngineFollower(KvFeedOptions feed, EngineFollowerOptions options, TimePoint now);

    /// What to do after a call: the replay that is wanted from this number on; the one before, if
    /// there was one, is not wanted any more.
    using Wish = std::optional<std::uint64_t>;

    /// Before anything else; and when the connection to the engine is a new one.
    [[nodiscard]] Wish start(TimePoint now, std::vector<protocol::KvEvent>& out);
    [[nodiscard]] Wish on_message(std::uint64_t number, std::string_view payload, TimePoint now,
                                  std::vector<protocol::KvEvent>& out);
    /// A message of the replay asked for last; messages of others must not come here.
    void on_replayed(std::uint64_t number, std::string_view payload, TimePoint now,
                     std::vector<protocol::KvEvent>& out);
    [[nodiscard]] Wish on_replay_end(TimePoint now, std::vector<protocol::KvEvent>& out);
    /// Every some hundred milliseconds.
    [[nodiscard]] Wish on_time(TimePoint now, std::vector<protocol::KvEvent>& out);
    /// The engine's cache was reset from here, which engines tell only with their next step.
    void was_reset(std::vector<protocol::KvEvent>& out);

    [[nodiscard]] State state() const { return state_; }
    struct Stats {
        std::uint64_t messages = 0;
        std::uint64_t repeated = 0;
        std::uint64_t unreadable = 0;
        std::uint64_t gaps = 0;
        std::uint64_t restarts = 0;
        std::uint64_t lost_history = 0;  ///< times that something was missed for good
    };
    [[nodiscard]] const Stats& stats() const { return stats_; }
    /// Something the engine holds may be unknown here: its history could not be had from the start.
    [[nodiscard]] bool incomplete() const { return incomplete_; }
    [[nodiscard]] KvFeed& feed() { return feed_; }
    [[nodiscard]] const KvFeed& feed() const { return feed_; }

  private:
    [[nodiscard]] Wish ask(std::uint64_t from, TimePoint now);
    [[nodiscard]] Wish begin(TimePoint now, std::vector<protocol::KvEvent>& out);
    [[nodiscard]] Wish settle(TimePoint now, std::vector<protocol::KvEvent>& out);
    void hold(std::uint64_t number, std::string_view payload);
    void let_go();
    void apply(std::uint64_t number, std::string_view payload, std::vector<protocol::KvEvent>& out);
    void forget(std::vector<protocol::KvEvent>& out);
    void number(std::vector<protocol::KvEvent>& out, std::size_t from);

    const EngineFollowerOptions options_;
    KvFeed feed_;
    State state_ = State::kSyncing;
    std::uint64_t next_ = 0;     ///< the engine's next number
    std::uint64_t asked_ = 0;    ///< first number of the replay under way
    bool replayed_any_ = false;  ///< since it was asked for
    std::uint32_t tries_ = 0;
    TimePoint heard_;       ///< from the replay
    double last_time_ = 0;  ///< of the batch applied last, by the engine's clock
    bool incomplete_ = false;
    std::map<std::uint64_t, std::string> held_;
    std::size_t held_bytes_ = 0;
    std::uint64_t last_event_ = 0;  ///< number of our event given last
    EngineKvBatch batch_;
    Stats stats_;
};

}  // namespace stator::engine
