#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "stator/fleet/fleet.h"
#include "stator/fleet/rank_load.h"
#include "stator/requests/link.h"
#include "stator/requests/stream_table.h"

namespace stator::fleet {

/// Told what becomes of a LinkedWorker, on its loop.
class MemberEvents {
  public:
    virtual ~MemberEvents() = default;
    /// Its words, which are in order by themselves; an error refuses the worker.
    [[nodiscard]] virtual Result<void> on_words(
        const std::shared_ptr<const protocol::WorkerInfo>& info) = 0;
    virtual void on_state(MemberState from, MemberState to, const std::string& reason) = 0;
    virtual void on_canary(bool lost) = 0;
    /// The last call. `refused`: what answers there is not a worker that we want.
    virtual void on_over(const Error& why, bool refused) = 0;
};

struct MemberOptions {
    std::uint64_t id = 0;
    requests::LinkOptions link;
    std::chrono::milliseconds canary_after{5'000};
    std::chrono::milliseconds canary_within{10'000};
};

/// One link to what answers at an address, and the worker behind it. Finds a worker that is stuck:
/// as long as streams are open, or the worker is silent, a timer looks for progress (a token, an
/// engine step) and sends a canary where there was none. An idle worker has no timer.
class LinkedWorker final : public Worker,
                           public requests::ClientLinkEvents,
                           public std::enable_shared_from_this<LinkedWorker> {
  public:
    LinkedWorker(MemberOptions options, runtime::Loop& loop, std::shared_ptr<MemberEvents> events,
                 const Clock& clock);

    // On the loop.
    void connect();
    /// Discovery does not name it any more: goes at once, or when its last stream has ended.
    void remove();
    /// Ends the link; streams are lost.
    void shut(const Error& why);

    // Worker
    [[nodiscard]] std::uint64_t id() const override { return options_.id; }
    [[nodiscard]] runtime::Loop& loop() const override { return loop_; }
    [[nodiscard]] std::shared_ptr<const protocol::WorkerInfo> info() const override;
    [[nodiscard]] MemberState state() const override {
        return state_.load(std::memory_order_acquire);
    }
    [[nodiscard]] protocol::LoadReport load(std::uint32_t rank) const override;
    [[nodiscard]] Result<requests::StreamId> open(
        std::shared_ptr<const protocol::GenerateRequest> request, std::uint32_t rank,
        StreamEvents& events, std::uint64_t tag) override;
    void cancel(requests::StreamId stream) override;
    void release(requests::StreamId stream) override;
    void watch_handoff(requests::StreamId stream, std::function<void(const Error&)> lost) override;
    void fetch(const requests::Fetch& what, std::function<void(Result<std::string>)> done) override;

    // From the link.
    void on_info(const protocol::WorkerInfo& info) override;
    void on_load(const requests::LoadMessage& load) override;
    void on_go_away(const requests::GoAway& go_away) override;
    void on_silent(bool silent) override;
    void on_step(requests::StreamId stream, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override;
    void on_handoff_lost(requests::StreamId stream, const Error& why) override;
    void on_turn_end() override;
    void on_fetched(std::uint64_t fetch, Result<std::string> body) override;
    void on_lane_wanted(requests::LaneId) override {}
    void on_lane_unwanted(requests::LaneId) override {}
    void on_lost(const Error& why) override;

  private:
    struct Stream {
        StreamEvents* events = nullptr;
        std::uint64_t tag = 0;
        std::uint32_t rank = 0;
    };
    using Ranks = std::vector<std::unique_ptr<RankLoad>>;

    void apply(MemberEvent event, const std::string& reason);
    void finish(MemberEvent event, const Error& why, bool refused);
    void lose_streams(const Error& why);
    void end_if_removed();
    void arm();
    void on_timer();
    void send_canary();
    void canary_back();
    void canary_lost();

    const MemberOptions options_;
    runtime::Loop& loop_;
    const Clock& clock_;
    std::shared_ptr<MemberEvents> events_;
    std::atomic<MemberState> state_{MemberState::kConnecting};

    mutable std::mutex mutex_;  ///< of the two below
    std::shared_ptr<const protocol::WorkerInfo> info_;
    std::shared_ptr<const Ranks> ranks_;  ///< replaced while loading alone

    // Of the loop alone.
    std::shared_ptr<requests::Link> link_;
    requests::StreamTable<Stream> streams_;
    std::vector<StreamEvents*> touched_;
    std::map<std::uint64_t, std::function<void(Result<std::string>)>> fetches_;
    static constexpr std::size_t kMostWatched = 1024;
    std::map<std::uint32_t, std::function<void(const Error&)>> watched_;  ///< by stream
    std::uint64_t booking_ = 0;
    bool over_ = false;
    bool removed_ = false;

    boost::asio::steady_timer timer_;
    bool armed_ = false;
    bool progress_ = false;  ///< since the last look
    int looks_in_vain_ = 0;
    std::vector<std::uint64_t> steps_;  ///< by rank, as last reported
    bool silent_ = false;
    bool stuck_ = false;  ///< a canary was lost and none has come back since
    std::optional<Deadline> canary_until_;
    std::optional<requests::StreamId> canary_;
    bool progress_since_canary_ = false;
};

}  // namespace stator::fleet
