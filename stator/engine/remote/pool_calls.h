#pragma once

#include <array>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "stator/engine/remote/call_queue.h"
#include "stator/engine/remote/pool_engine.h"
#include "stator/legs/request_life.h"
#include "stator/routing/pool_router.h"

namespace stator::engine {

class CallRoom;

/// One rank of one worker, as long as the pool has it.
struct RankSlot {
    std::shared_ptr<fleet::Worker> worker;
    std::uint32_t rank = 0;
    CallRoom* room = nullptr;                   ///< of the worker's loop
    std::atomic<std::uint32_t> pending{0};      ///< chosen, not opened yet
    router::RankIndex route = router::kNoRank;  ///< its number in the router
};

/// Handoffs that end sooner are not sent to a rank any more.
inline constexpr std::chrono::seconds kLeaseToSpare{1};

/// One accepted request. It belongs to one room at a time: `home`. Only `cancelled` and `home` are
/// touched elsewhere. Whoever cancels sets `cancelled` and then asks home; whoever moves sets home
/// and then looks at `cancelled` (both sequentially consistent), so that one of them sees the
/// other.
struct Call {
    Call(protocol::GenerateRequest request, std::uint32_t max_migrations,
         std::shared_ptr<StepSink> to)
        : life(std::move(request), max_migrations), sink(std::move(to)) {}

    legs::RequestLife life;
    std::shared_ptr<StepSink> sink;
    std::atomic<CallRoom*> home{nullptr};
    std::atomic<bool> cancelled{false};

    // Of its room.
    std::optional<std::uint64_t> tag;  ///< its place in the room; none: on the way, or ended
    std::size_t sink_slot = 0;
    std::shared_ptr<RankSlot> slot;  ///< asked, or on the way to it
    /// Booked with it for the decode leg, and counted as pending, until that leg comes.
    std::shared_ptr<RankSlot> decode_slot;
    std::optional<routing::Route> route;  ///< booked; goes with the slot
    TimePoint chosen_at;
    TimePoint submitted;
    bool queued = false;         ///< in the queue, which may have given it a rank meanwhile
    TimePoint queued_since;      ///< this time
    TimePoint tried_until;       ///< while it is queued: then those that refused are asked again
    bool first_token = false;    ///< on the present worker
    bool cached_untold = false;  ///< by the present worker, with its first token
    std::optional<requests::StreamId> stream;  ///< while a worker computes it
    /// Who has left a handoff that is an engine's own, and in which stream: nobody but its worker
    /// can release it.
    struct Left {
        std::shared_ptr<fleet::Worker> worker;
        requests::StreamId stream;
        protocol::HandoffId id;
    };
    std::optional<Left> left;
    std::vector<std::shared_ptr<RankSlot>> tried;  ///< those that refused
    std::optional<Error> refusal;                  ///< the last one
    std::optional<Error> failed;                   ///< what the last failed leg failed at
    std::string no_rank;  ///< why none that is ready can be asked; empty: none is
    std::optional<TimePoint> waiting_since;
    std::chrono::nanoseconds waited{0};
};

/// What the rooms of one pool share.
class PoolCalls : public std::enable_shared_from_this<PoolCalls> {
  public:
    PoolCalls(PoolEngineOptions options, runtime::LoopPool& loops, metrics::Registry& registry,
              const Clock& clock);
    ~PoolCalls();

    struct Ranks {
        bool known = false;  ///< the fleet knows the pool
        std::vector<std::shared_ptr<RankSlot>> ready;
    };

    // Any thread.
    [[nodiscard]] std::shared_ptr<const Ranks> ranks() const;
    void take_view(const fleet::FleetView& view);
    /// Gives the call a slot, booked and counted as pending, that is not among those tried. False:
    /// it may wait, and the best rank has too much before it.
    [[nodiscard]] Result<bool> choose(Call& call, bool may_wait);
    /// Whether it may wait in the queue: those that had a worker already go before all others.
    [[nodiscard]] bool may_wait(const Call& call) const {
        return queue_->on() && call.life.migrations() == 0 && !call.life.past_prompt();
    }
    [[nodiscard]] CallQueue& queue() { return *queue_; }
    /// The slot is counted as pending no more.
    static void arrived(Call& call) { call.slot->pending.fetch_sub(1, std::memory_order_relaxed); }
    /// Takes slot and booking from the call.
    void unbook(Call& call);
    /// Passes on the handoffs that it will not use.
    void release_handoffs(Call& call);
    /// Any thread: an early handoff's prompt could not be computed.
    void tell_handoff_lost(const std::shared_ptr<Call>& call, const protocol::HandoffId& handoff,
                           const Error& why);
    void release(std::shared_ptr<const protocol::Handoff> handoff);
    [[nodiscard]] routing::PoolRouter& router() { return *router_; }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<StepSink> sink);
    void cancel(protocol::RequestId id);
    void stop(Deadline deadline);
    [[nodiscard]] bool stopping() const { return stopping_.load(std::memory_order_acquire); }
    [[nodiscard]] bool ending() const { return ending_.load(std::memory_order_seq_cst); }
    /// Sends a call, whose `slot` may be set, to a room: at once where that is this thread's.
    void send(const std::shared_ptr<Call>& call, CallRoom& room, bool directly);
    /// The call can't be found any more.
    void forget(protocol::RequestId id);
    /// So many have got their last event.
    void ended(std::size_t count);
    [[nodiscard]] Error none_ready(const Call* call = nullptr) const;
    [[nodiscard]] Error refuse_full() const;

    const PoolEngineOptions options;  ///< `queue`: what it began with
    const Clock& clock;
    std::atomic<std::size_t> waiting{0};
    metrics::Counter& migrations;
    metrics::Counter& refused_elsewhere;
    metrics::Counter& splits;
    metrics::Counter& encoded_again;
    metrics::Counter& recomputed;
    metrics::Counter& released;
    metrics::Gauge& waiting_gauge;

  private:
    struct Shard {
        std::mutex mutex;
        std::unordered_map<std::uint64_t, std::shared_ptr<Call>> calls;
    };
    [[nodiscard]] Shard& shard(protocol::RequestId id) {
        return shards_[id.value % shards_.size()];
    }
    [[nodiscard]] CallRoom& room_of(const runtime::Loop& loop) const;
    [[nodiscard]] CallRoom& waiting_room(protocol::RequestId id) const;
    /// Where it may be found to be cancelled.
    void enter(const std::shared_ptr<Call>& call, CallRoom& home);
    [[nodiscard]] Result<void> check(const protocol::GenerateRequest& request) const;
    [[nodiscard]] Result<void> accept(protocol::GenerateRequest request,
                                      std::shared_ptr<StepSink> sink);
    [[nodiscard]] Result<routing::Route> route(Call& call,
                                               std::span<const router::RankIndex> excluded,
                                               bool may_wait);
    [[nodiscard]] Result<void> enqueue(const std::shared_ptr<Call>& call);
    [[nodiscard]] bool begin();

    std::vector<std::unique_ptr<CallRoom>> rooms_;
    mutable std::mutex ranks_mutex_;
    std::shared_ptr<const Ranks> ranks_ = std::make_shared<Ranks>();
    std::array<Shard, 16> shards_;
    std::shared_ptr<routing::PoolRouter> router_;
    std::unique_ptr<CallQueue> queue_;
    std::atomic<bool> stopping_{false};
    std::atomic<bool> ending_{false};
    std::mutex live_mutex_;
    std::condition_variable none_live_;
    std::size_t live_ = 0;
};

}  // namespace stator::engine
