#pragma once

#include <array>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "stator/base/clock.h"
#include "stator/engine/remote/pool_engine.h"
#include "stator/metrics/registry.h"
#include "stator/router/admission_queue.h"
#include "stator/routing/pool_router.h"
#include "stator/runtime/loop.h"

namespace stator::engine {

struct Call;
class CallRoom;
class PoolCalls;

/// The calls of one pool that wait until a rank should have them, in the order of
/// router::AdmissionQueue. Whenever there may be room (a booking has ended, a prompt is computed,
/// workers came, else every 20 ms) they are offered in that order: each is scored anew, and booked
/// where the best rank has little before it. Such a pass runs on one loop and takes at most a fifth
/// of its time.
///
/// A call in here is at home in a room, which holds it and its deadline, and must touch neither
/// slot nor route of it before it has got it back: by remove(), or by CallRoom::out_of_queue().
class CallQueue {
  public:
    CallQueue(PoolCalls& calls, runtime::Loop& loop, metrics::Registry& registry);
    ~CallQueue();

    // Any thread.
    /// False: nothing ever waits in here.
    [[nodiscard]] bool on() const { return most_.load(std::memory_order_relaxed) > 0; }
    /// What a rank may have before a request that leaves for it.
    [[nodiscard]] routing::Hold hold() const {
        return {hold_s_.load(std::memory_order_relaxed),
                hold_share_.load(std::memory_order_relaxed)};
    }
    /// From now on. Those who wait stay and are served, whatever the bounds are now.
    void set_options(const PoolQueueOptions& options);
    [[nodiscard]] bool empty() const { return size_.load(std::memory_order_relaxed) == 0; }
    /// Takes it in. `arriving`: on its way to its home, which is posted CallRoom::settle_queued().
    /// kOverloaded with when to try again, kDeadlineExceeded: as AdmissionQueue::push().
    [[nodiscard]] Result<void> push(const std::shared_ptr<Call>& call, bool arriving);
    /// False: it has left already, and its room will be told. Counts it under `reason`.
    bool remove(const Call& call, bool expired);
    /// Something may have got free.
    void nudge() {
        if (!empty()) order();
    }
    /// None: nobody waits here, now or later.
    [[nodiscard]] std::optional<routing::PoolRouter::QueueState> state() const;

  private:
    void take_options(const PoolQueueOptions& options);
    void order();
    void wanted();
    void arm(TimePoint at);
    void pass();
    [[nodiscard]] router::Waiting describe(const Call& call) const;
    [[nodiscard]] router::Offered ask(const router::Waiting& waiting, TimePoint now);
    void show();
    [[nodiscard]] router::Nanos since_start(TimePoint t) const { return t - zero_; }

    PoolCalls& calls_;
    runtime::Loop& loop_;
    const TimePoint zero_;
    std::array<metrics::Gauge*, 3> lengths_{};
    std::array<metrics::Histogram*, 3> waits_{};
    metrics::Counter& full_;
    metrics::Counter& displaced_;
    metrics::Counter& too_late_;
    metrics::Counter& expired_;

    std::atomic<std::size_t> most_{0};  ///< requests
    std::atomic<double> hold_s_{0};
    std::atomic<double> hold_share_{0};
    std::atomic<std::size_t> size_{0};
    std::atomic<bool> ordered_{false};

    mutable std::mutex mutex_;  ///< of what follows, and of slot and route of the calls in here
    router::AdmissionQueue queue_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Call>> calls_here_;
    struct Gone {
        std::shared_ptr<Call> call;
        std::optional<Error> why;
    };
    std::vector<Gone> gone_;  ///< of the present pass, to be told

    // Of the loop.
    boost::asio::steady_timer timer_;
    std::optional<TimePoint> armed_;
    TimePoint not_before_;
};

/// Higher goes first: below 0 is batch, above is interactive.
[[nodiscard]] constexpr router::RequestClass class_of(std::int32_t priority) {
    return priority > 0   ? router::RequestClass::kInteractive
           : priority < 0 ? router::RequestClass::kBatch
                          : router::RequestClass::kStandard;
}

}  // namespace stator::engine
