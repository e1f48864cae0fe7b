#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "stator/fleet/fleet.h"
#include "stator/fleet/fleet_metrics.h"
#include "stator/requests/link.h"

namespace stator::fleet {

class Member;

/// What a member needs of the fleet it belongs to. Called on the member's loop unless said.
class MemberOwner {
  public:
    virtual ~MemberOwner() = default;
    /// The first to claim an incarnation has it until release(). Any thread.
    virtual bool claim(protocol::Incarnation incarnation, const net::SocketAddress& address,
                       std::string& held_by) = 0;
    virtual void release(protocol::Incarnation incarnation, const net::SocketAddress& address) = 0;
    /// Its state or its words changed.
    virtual void changed() = 0;
    /// The last word: the link is over. `sent_away`: it would be again.
    virtual void gone(const std::shared_ptr<Member>& member, bool sent_away) = 0;
};

/// One attempt at an address, and what comes of it: a worker, until it is gone. Lives on its loop;
/// what Worker says of threads holds.
class Member final : public Worker,
                     public requests::ClientLinkEvents,
                     public std::enable_shared_from_this<Member> {
  public:
    struct Options {
        requests::LinkOptions link;
        std::chrono::milliseconds canary_after;
        std::chrono::milliseconds canary_within;
    };
    Member(std::uint64_t id, runtime::Loop& loop, Options options, std::weak_ptr<MemberOwner> owner,
           FleetMetrics& metrics, const Clock& clock);
    ~Member() override;

    // On the loop.
    void start();
    /// Discovery does not name it any more: it may finish what it has.
    void leave();
    /// Ends it now.
    void end(const Error& why);
    /// From time to time while streams are open or the worker is suspect: whether the engine makes
    /// steps.
    void check_progress();

    // Any thread.
    [[nodiscard]] const net::SocketAddress& address() const { return options_.link.address; }
    [[nodiscard]] std::size_t open_streams() const {
        return open_count_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::string reason() const;
    [[nodiscard]] bool introduced() const { return info() != nullptr; }

    // Worker
    [[nodiscard]] std::uint64_t id() const override { return id_; }
    [[nodiscard]] runtime::Loop& loop() const override { return loop_; }
    [[nodiscard]] std::shared_ptr<const protocol::WorkerInfo> info() const override;
    [[nodiscard]] MemberState state() const override {
        return state_.load(std::memory_order_acquire);
    }
    [[nodiscard]] std::size_t rank_count() const override {
        return rank_count_.load(std::memory_order_acquire);
    }
    [[nodiscard]] protocol::LoadReport load(std::uint32_t rank) const override;
    void reserve(std::uint32_t rank, int change) override;
    [[nodiscard]] Result<requests::StreamId> open(
        std::shared_ptr<const protocol::GenerateRequest> request, std::uint32_t rank,
        StreamEvents& events, std::uint64_t tag) override;
    void cancel(requests::StreamId stream) override;
    void fetch(const requests::Fetch& what, std::function<void(Result<std::string>)> done) override;

    // requests::ClientLinkEvents
    void on_info(const protocol::WorkerInfo& info) override;
    void on_load(const requests::LoadMessage& load) override;
    void on_go_away(const requests::GoAway& go_away) override;
    void on_silent(bool silent) override;
    void on_step(requests::StreamId stream, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override;
    void on_turn_end() override;
    void on_fetched(std::uint64_t fetch, Result<std::string> body) override;
    void on_lane_wanted(requests::LaneId /*lane*/) override {}
    void on_lane_unwanted(requests::LaneId /*lane*/) override {}
    void on_lost(const Error& why) override;

  private:
    /// What is known of a rank's load; written on the loop, read anywhere.
    struct RankLoad {
        std::atomic<std::uint32_t> running{0};
        std::atomic<std::uint32_t> waiting{0};
        std::atomic<std::uint32_t> running_limit{0};
        std::atomic<std::uint32_t> waiting_limit{0};
        std::atomic<std::uint64_t> waiting_tokens{0};
        std::atomic<std::uint64_t> kv_used{0};
        std::atomic<std::uint64_t> kv_cached{0};
        std::atomic<std::uint64_t> kv_total{0};
        std::atomic<std::int32_t> reserved{0};
        std::atomic<std::uint32_t> unseen{0};  ///< opened here, not yet in its report
        std::deque<std::uint64_t> bookings;    ///< of those, in order; the loop's
        std::uint64_t steps = 0;               ///< the loop's
    };
    struct Stream {
        StreamEvents* events = nullptr;
        std::uint64_t tag = 0;
    };

    /// nullopt: fine. Else why these words can't be believed.
    [[nodiscard]] std::optional<Error> contradiction(const protocol::WorkerInfo& info) const;
    void apply(MemberEvent event, std::string_view why);
    void send_away(const Error& why);
    void over(const Error& why);
    void lose_streams(const Error& why);
    void close_if_done();
    void send_canary(TimePoint now);
    void canary_ended(bool got_token);

    const std::uint64_t id_;
    runtime::Loop& loop_;
    const Options options_;
    const std::weak_ptr<MemberOwner> owner_;
    FleetMetrics& metrics_;
    const Clock& clock_;
    std::string address_text_;

    std::atomic<MemberState> state_{MemberState::kConnecting};
    mutable std::mutex mutex_;  ///< the two below
    std::shared_ptr<const protocol::WorkerInfo> info_;
    std::string reason_ = "being dialled";
    std::vector<std::unique_ptr<RankLoad>> ranks_;  ///< fixed with the first info
    std::atomic<std::size_t> rank_count_{0};
    std::atomic<std::size_t> open_count_{0};

    // Of the loop alone.
    std::shared_ptr<requests::Link> link_;
    bool claimed_ = false;
    bool sent_away_ = false;
    bool leaving_ = false;
    bool stuck_ = false;  ///< its last canary was lost
    std::uint64_t next_booking_ = 0;
    std::unordered_map<std::uint32_t, Stream> streams_;
    std::vector<StreamEvents*> touched_;
    std::unordered_map<std::uint64_t, std::function<void(Result<std::string>)>> fetches_;
    TimePoint last_progress_;
    std::optional<requests::StreamId> canary_;
    Deadline canary_deadline_;
    std::unique_ptr<StreamEvents> canary_events_;
};

}  // namespace stator::fleet
