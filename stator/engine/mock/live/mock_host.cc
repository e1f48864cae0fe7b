#include "stator/engine/mock/live/mock_host.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "stator/base/check.h"

namespace stator::engine {
namespace {

using std::chrono::nanoseconds;

/// How many turns may pass before a thread's CPU time is read again (a system call).
constexpr std::uint64_t kCpuTimeTurns = 256;
constexpr unsigned long kTimerSlackNs = 1'000;

class DriverThread;

class SeatImpl final : public MockHost::Seat {
  public:
    SeatImpl(DriverThread& thread, MockHost::Driven& driven) : thread_(thread), driven_(driven) {}
    ~SeatImpl() override { leave(); }
    void wake(TimePoint at) override;
    void leave() override;

  private:
    friend class DriverThread;
    DriverThread& thread_;
    MockHost::Driven& driven_;
    // Under the thread's mutex.
    Deadline due_;
    bool driving_ = false;
    bool left_ = false;
};

/// One thread with its seats by due time.
class DriverThread {
  public:
    DriverThread(const Clock& clock, nanoseconds gather) : clock_(clock), gather_(gather) {
        thread_ = std::thread([this] { run(); });
        ::pthread_setname_np(thread_.native_handle(), "mock");
    }

    ~DriverThread() {
        {
            const std::scoped_lock lock(mutex_);
            STATOR_ASSERT(queue_.empty());
            quit_ = true;
        }
        wake_.notify_one();
        thread_.join();
    }

    void wake(SeatImpl& seat, TimePoint at) {
        bool first = false;
        {
            const std::scoped_lock lock(mutex_);
            const Deadline due = Deadline::at(at);
            if (seat.left_ || seat.due_ <= due) return;
            first = !seat.driving_ && (queue_.empty() || due < queue_.begin()->first);
            if (!seat.driving_) {
                unqueue(seat);
                queue_.emplace(due, &seat);
            }
            seat.due_ = due;
        }
        if (first) wake_.notify_one();
    }

    void leave(SeatImpl& seat) {
        std::unique_lock lock(mutex_);
        STATOR_CHECK(std::this_thread::get_id() != thread_.get_id(),
                     "a seat is not given up from within drive()");
        seat.left_ = true;
        unqueue(seat);
        turned_.wait(lock, [&] { return !seat.driving_; });
    }

    [[nodiscard]] std::uint64_t turns() const { return turns_.load(std::memory_order_relaxed); }
    [[nodiscard]] double cpu_seconds() const { return cpu_.load(std::memory_order_relaxed); }

  private:
    void unqueue(SeatImpl& seat) {
        if (!seat.due_.is_never()) queue_.erase({seat.due_, &seat});
    }

    void run() {
        // The kernel's usual slack of 50 µs would be added to each sleep.
        ::prctl(PR_SET_TIMERSLACK, kTimerSlackNs, 0, 0, 0);
        std::unique_lock lock(mutex_);
        TimePoint not_before;
        while (!quit_) {
            if (queue_.empty()) {
                cpu_.store(thread_cpu_seconds(), std::memory_order_relaxed);
                wake_.wait(lock);
                continue;
            }
            const TimePoint now = clock_.now();
            const nanoseconds wait = std::max(queue_.begin()->first.left(now), not_before - now);
            if (wait.count() > 0) {
                wake_.wait_for(lock, wait);
                continue;
            }
            turn(lock, now);
            not_before = now + gather_;
        }
    }

    void turn(std::unique_lock<std::mutex>& lock, TimePoint now) {
        while (!queue_.empty() && queue_.begin()->first.reached(now)) {
            SeatImpl* seat = queue_.begin()->second;
            queue_.erase(queue_.begin());
            seat->due_ = Deadline::never();
            seat->driving_ = true;
            batch_.push_back({seat, {}});
        }
        lock.unlock();
        for (auto& [seat, next] : batch_) next = seat->driven_.drive(now);
        for (const auto& [seat, next] : batch_) seat->driven_.deliver();
        for (const auto& [seat, next] : batch_) seat->driven_.announce();
        lock.lock();
        for (auto& [seat, next] : batch_) {
            seat->driving_ = false;
            seat->due_ = std::min(seat->due_, next);  // somebody may have called wake()
            if (!seat->left_ && !seat->due_.is_never()) queue_.emplace(seat->due_, seat);
        }
        batch_.clear();
        turned_.notify_all();
        if (turns_.fetch_add(1, std::memory_order_relaxed) % kCpuTimeTurns == 0) {
            cpu_.store(thread_cpu_seconds(), std::memory_order_relaxed);
        }
    }

    const Clock& clock_;
    const nanoseconds gather_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable turned_;  ///< leave() waits on it
    std::set<std::pair<Deadline, SeatImpl*>> queue_;
    bool quit_ = false;
    std::vector<std::pair<SeatImpl*, Deadline>> batch_;  // the thread's
    std::atomic<std::uint64_t> turns_{0};
    std::atomic<double> cpu_{0.0};
    std::thread thread_;
};

void SeatImpl::wake(TimePoint at) { thread_.wake(*this, at); }
void SeatImpl::leave() { thread_.leave(*this); }

void raise_to(std::atomic<std::int64_t>& most, std::int64_t v) {
    std::int64_t seen = most.load(std::memory_order_relaxed);
    while (seen < v && !most.compare_exchange_weak(seen, v, std::memory_order_relaxed)) {
    }
}

}  // namespace

struct MockHost::Impl {
    Impl(const MockHostOptions& options, const Clock& clock_) : clock(clock_), zero(clock_.now()) {
        for (std::size_t i = 0; i < std::max<std::size_t>(options.threads, 1); ++i) {
            threads.push_back(std::make_unique<DriverThread>(clock, options.gather));
        }
    }

    const Clock& clock;
    const TimePoint zero;
    std::vector<std::unique_ptr<DriverThread>> threads;
    std::atomic<std::size_t> seats{0};
    std::atomic<std::uint64_t> steps{0};
    std::atomic<std::int64_t> late_ns{0};
    std::atomic<std::int64_t> latest_ns{0};
    std::atomic<std::int64_t> lost_ns{0};
};

MockHost::MockHost(MockHostOptions options, const Clock& clock)
    : impl_(std::make_unique<Impl>(options, clock)) {}
MockHost::~MockHost() = default;

std::unique_ptr<MockHost::Seat> MockHost::seat(Driven& driven) {
    DriverThread& thread = *impl_->threads[impl_->seats++ % impl_->threads.size()];
    return std::make_unique<SeatImpl>(thread, driven);
}

TimePoint MockHost::zero() const { return impl_->zero; }
const Clock& MockHost::clock() const { return impl_->clock; }

void MockHost::step_was_late(nanoseconds late) {
    impl_->steps.fetch_add(1, std::memory_order_relaxed);
    impl_->late_ns.fetch_add(late.count(), std::memory_order_relaxed);
    raise_to(impl_->latest_ns, late.count());
}

void MockHost::time_lost(nanoseconds lost) {
    impl_->lost_ns.fetch_add(lost.count(), std::memory_order_relaxed);
}

MockHost::Stats MockHost::stats() const {
    Stats s;
    s.steps = impl_->steps.load(std::memory_order_relaxed);
    s.late = nanoseconds(impl_->late_ns.load(std::memory_order_relaxed));
    s.latest = nanoseconds(impl_->latest_ns.load(std::memory_order_relaxed));
    s.lost = nanoseconds(impl_->lost_ns.load(std::memory_order_relaxed));
    for (const auto& thread : impl_->threads) {
        s.turns += thread->turns();
        s.cpu_seconds += thread->cpu_seconds();
    }
    return s;
}

void MockHost::show(metrics::Registry& r) const {
    const auto add = [&](std::string_view name, std::string_view help, bool counter, auto value) {
        r.callback(name, help, counter, [this, value] { return value(stats()); });
    };
    add("stator_mock_steps_total", "Steps of all mock engines of this process.", true,
        [](const Stats& s) { return static_cast<double>(s.steps); });
    add("stator_mock_late_seconds_total",
        "How long after their time steps ended, in real time; beside the number of steps it says "
        "whether the machine keeps up.",
        true, [](const Stats& s) { return to_seconds(s.late); });
    add("stator_mock_latest_seconds", "How late the latest step ended.", false,
        [](const Stats& s) { return to_seconds(s.latest); });
    add("stator_mock_lost_seconds_total",
        "Time that engines gave up catching up with; above 0 the figures of this fleet are worth "
        "nothing.",
        true, [](const Stats& s) { return to_seconds(s.lost); });
    add("stator_mock_turns_total", "Wake-ups of the mock engines' threads that found work.", true,
        [](const Stats& s) { return static_cast<double>(s.turns); });
    add("stator_mock_cpu_seconds_total", "CPU time of the mock engines' threads.", true,
        [](const Stats& s) { return s.cpu_seconds; });
}

}  // namespace stator::engine
