#include "stator/engine/echo/echo_engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "stator/base/check.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;
using tokens::TokenId;

constexpr std::uint32_t kMaxTopLogprobs = 20;
constexpr std::uint32_t kRetryAfterMs = 1000;
/// How many steps may pass before the thread's CPU time is read again (a system call).
constexpr std::uint64_t kCpuTimeSteps = 1024;

struct Sequence {
    GenerateRequest request;
    std::shared_ptr<StepSink> sink;
    std::uint32_t slot = 0;      ///< index of its sink in slots_, while it runs
    std::uint32_t position = 0;  ///< next prompt token to give back
    std::uint32_t produced = 0;

    /// The prompt as it was at first: without the output that came from elsewhere.
    [[nodiscard]] std::uint32_t prompt_tokens() const {
        return static_cast<std::uint32_t>(request.prompt.size()) - request.resumed_tokens;
    }
};

bool has_ended(const Sequence& s) { return s.sink == nullptr; }

/// The batch that one receiver gets at the end of the step.
struct SinkSlot {
    std::shared_ptr<StepSink> sink;
    StepBatch batch;
    std::uint32_t users = 0;  ///< sequences that run for it
};

class EchoEngine final : public Engine {
  public:
    explicit EchoEngine(EchoOptions options) : options_(options), clock_(Clock::real()) {
        options_.tokens_per_step = std::max(options_.tokens_per_step, 1U);
        options_.max_running = std::max(options_.max_running, 1U);
        info_.kind = "echo";
        info_.device = "cpu";
        info_.context_tokens = options_.context_tokens;
        info_.max_running = options_.max_running;
        info_.max_waiting = options_.max_waiting;
        info_.max_top_logprobs = kMaxTopLogprobs;
        thread_ = std::thread([this] { run(); });
    }

    ~EchoEngine() override { stop(Deadline::at({})); }

    [[nodiscard]] const EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override;
    void cancel(RequestId id) override;
    [[nodiscard]] protocol::LoadReport load() const override;
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override;
    [[nodiscard]] bool healthy() const override { return !ended_.load(std::memory_order_acquire); }
    void stop(Deadline deadline) override;

  private:
    void run();
    bool attend();
    void admit();
    void wait_for_step(std::unique_lock<std::mutex>& lock);
    void step();
    bool produce(Sequence& sequence, SinkSlot& slot);
    void finish_early(Sequence& sequence, FinishReason reason);
    void fill_usage(const Sequence& sequence, StepEvent& event) const;
    void deliver();
    std::uint32_t take_slot(const Sequence& sequence);
    void leave_slot(const Sequence& sequence);
    void notify() { attention_.store(true, std::memory_order_release); }

    EchoOptions options_;
    const Clock& clock_;
    EngineInfo info_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;   ///< the engine's thread waits on it
    std::condition_variable empty_;  ///< stop() waits on it
    std::atomic<bool> attention_{
        false};  ///< something below changed: the thread must take the lock
    std::deque<Sequence> waiting_;
    std::vector<RequestId> cancelled_;
    std::uint32_t running_count_ = 0;
    std::uint64_t waiting_tokens_ = 0;
    bool refusing_ = false;
    bool cancel_all_ = false;
    bool quit_ = false;
    std::atomic<bool> ended_{false};

    // Of the engine's thread alone.
    std::vector<Sequence> running_;
    std::vector<SinkSlot> slots_;
    Deadline next_deadline_;  ///< no request's deadline lies before it
    TimePoint next_step_;
    std::vector<RequestId> cancelling_;

    std::atomic<std::uint64_t> steps_{0};
    std::atomic<std::uint64_t> prefill_tokens_{0};
    std::atomic<std::uint64_t> decode_tokens_{0};
    std::atomic<std::uint64_t> cached_tokens_{0};
    std::atomic<std::uint64_t> held_tokens_{0};
    std::atomic<double> cpu_seconds_{0.0};

    std::mutex stop_mutex_;
    std::thread thread_;
};

Result<void> EchoEngine::submit(GenerateRequest request, std::shared_ptr<StepSink> sink) {
    if (request.prompt.empty() || request.max_tokens == 0) {
        return error(
            ErrorCode::kInvalidArgument,
            "a request needs at least one prompt token and one token to generate, not {} and {}",
            request.prompt.size(), request.max_tokens);
    }
    if (request.prompt.size() + request.max_tokens > options_.context_tokens) {
        return error(ErrorCode::kInvalidArgument,
                     "{} prompt tokens and {} to generate do not fit the context of {} tokens",
                     request.prompt.size(), request.max_tokens, options_.context_tokens);
    }
    if (request.constraint) {
        auto refused =
            error(ErrorCode::kUnsupported, "the echo engine can't hold its output to a constraint");
        refused.value().param = "constraint";
        return refused;
    }
    if (request.resumed_tokens >= request.prompt.size()) {
        return param_error("resumed_tokens",
                           "{} resumed tokens leave nothing of a prompt of {} tokens",
                           request.resumed_tokens, request.prompt.size());
    }
    {
        const std::scoped_lock lock(mutex_);
        if (refusing_) return error(ErrorCode::kUnavailable, "the engine is stopping");
        if (waiting_.size() + running_count_ >=
            std::size_t{options_.max_running} + options_.max_waiting) {
            auto full = error(ErrorCode::kOverloaded,
                              "the engine's queue is full: {} requests run and {} wait",
                              running_count_, waiting_.size());
            full.value().retryable = true;
            full.value().retry_after_ms = kRetryAfterMs;
            return full;
        }
        waiting_tokens_ += request.prompt.size();
        Sequence sequence;
        sequence.request = std::move(request);
        sequence.position = sequence.request.resumed_tokens % sequence.prompt_tokens();
        sequence.sink = std::move(sink);
        waiting_.push_back(std::move(sequence));
        notify();
    }
    wake_.notify_one();
    return {};
}

void EchoEngine::cancel(RequestId id) {
    {
        const std::scoped_lock lock(mutex_);
        if (waiting_.empty() && running_count_ == 0) return;
        cancelled_.push_back(id);
        notify();
    }
    wake_.notify_one();
}

protocol::LoadReport EchoEngine::load() const {
    protocol::LoadReport report;
    const std::scoped_lock lock(mutex_);
    report.running = running_count_;
    report.waiting = static_cast<std::uint32_t>(waiting_.size());
    report.running_limit = options_.max_running;
    report.waiting_limit = options_.max_waiting;
    report.waiting_tokens = waiting_tokens_;
    report.kv_used_tokens = held_tokens_.load(std::memory_order_relaxed);
    report.kv_total_tokens = std::uint64_t{options_.context_tokens} * options_.max_running;
    return report;
}

protocol::ForwardPassMetrics EchoEngine::forward_pass_metrics() const {
    protocol::ForwardPassMetrics m;
    m.steps = steps_.load(std::memory_order_relaxed);
    m.prefill_tokens = prefill_tokens_.load(std::memory_order_relaxed);
    m.decode_tokens = decode_tokens_.load(std::memory_order_relaxed);
    m.cached_tokens = cached_tokens_.load(std::memory_order_relaxed);
    m.engine_cpu_seconds = cpu_seconds_.load(std::memory_order_relaxed);
    return m;
}

void EchoEngine::stop(Deadline deadline) {
    const std::scoped_lock one_at_a_time(stop_mutex_);
    {
        std::unique_lock lock(mutex_);
        refusing_ = true;
        const auto is_empty = [this] { return waiting_.empty() && running_count_ == 0; };
        if (deadline.is_never()) {
            empty_.wait(lock, is_empty);
        } else if (!empty_.wait_for(lock, deadline.left(clock_.now()), is_empty)) {
            cancel_all_ = true;
            notify();
            wake_.notify_one();
            empty_.wait(lock, is_empty);
        }
        quit_ = true;
        notify();
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
}

void EchoEngine::run() {
    std::unique_lock lock(mutex_, std::defer_lock);
    std::uint64_t cpu_read_at = 0;
    while (true) {
        if (attention_.load(std::memory_order_acquire) || running_.empty()) {
            lock.lock();
            if (running_.empty() && waiting_.empty()) {
                cpu_seconds_.store(thread_cpu_seconds(), std::memory_order_relaxed);
                wake_.wait(lock, [this] { return attention_.load(std::memory_order_relaxed); });
                next_step_ = clock_.now() + options_.step;
            }
            const bool go_on = attend();
            lock.unlock();
            deliver();
            if (!go_on) break;
            if (running_.empty()) continue;
        }
        if (options_.step.count() > 0) {
            lock.lock();
            wait_for_step(lock);
            const bool interrupted = attention_.load(std::memory_order_relaxed);
            lock.unlock();
            if (interrupted) continue;
        }
        step();
        if (const auto n = steps_.load(std::memory_order_relaxed);
            n >= cpu_read_at + kCpuTimeSteps) {
            cpu_read_at = n;
            cpu_seconds_.store(thread_cpu_seconds(), std::memory_order_relaxed);
        }
    }
    ended_.store(true, std::memory_order_release);
}

/// Takes cancellations, deadlines and new requests in. With the lock. False when the thread is to
/// end.
bool EchoEngine::attend() {
    attention_.store(false, std::memory_order_relaxed);
    cancelling_.swap(cancelled_);
    cancelled_.clear();
    std::sort(cancelling_.begin(), cancelling_.end());
    const TimePoint now =
        next_deadline_.is_never() && waiting_.empty() ? TimePoint{} : clock_.now();
    const auto must_end = [&](const Sequence& s) {
        return cancel_all_ || s.request.deadline.reached(now) ||
               std::binary_search(cancelling_.begin(), cancelling_.end(), s.request.id);
    };
    for (Sequence& s : running_) {
        if (!must_end(s)) continue;
        held_tokens_.fetch_sub(s.request.prompt.size() + s.produced, std::memory_order_relaxed);
        finish_early(s, FinishReason::kCancelled);
    }
    std::erase_if(running_, has_ended);
    for (Sequence& s : waiting_) {
        if (!must_end(s)) continue;
        s.slot = take_slot(s);
        waiting_tokens_ -= s.request.prompt.size();
        finish_early(s, FinishReason::kCancelled);
    }
    std::erase_if(waiting_, has_ended);
    cancelling_.clear();
    admit();
    next_deadline_ = Deadline::never();
    for (const Sequence& s : running_)
        next_deadline_ = std::min(next_deadline_, s.request.deadline);
    for (const Sequence& s : waiting_)
        next_deadline_ = std::min(next_deadline_, s.request.deadline);
    running_count_ = static_cast<std::uint32_t>(running_.size());
    if (running_.empty() && waiting_.empty()) empty_.notify_all();
    return !(quit_ && running_.empty() && waiting_.empty());
}

void EchoEngine::admit() {
    while (!waiting_.empty() && running_.size() < options_.max_running) {
        running_.push_back(std::move(waiting_.front()));
        waiting_.pop_front();
        Sequence& s = running_.back();
        s.slot = take_slot(s);
        const std::size_t prompt = s.request.prompt.size();
        const std::size_t cached = std::min<std::size_t>(options_.cached_tokens, prompt - 1);
        waiting_tokens_ -= prompt;
        held_tokens_.fetch_add(prompt, std::memory_order_relaxed);
        prefill_tokens_.fetch_add(prompt - cached, std::memory_order_relaxed);
        cached_tokens_.fetch_add(cached, std::memory_order_relaxed);
    }
}

/// With the lock: sleeps until the next step is due, a deadline is reached or somebody wants
/// something.
void EchoEngine::wait_for_step(std::unique_lock<std::mutex>& lock) {
    while (!attention_.load(std::memory_order_relaxed)) {
        const TimePoint now = clock_.now();
        if (next_deadline_.reached(now)) {
            notify();
            return;
        }
        if (now >= next_step_) break;
        wake_.wait_for(lock, std::min(next_step_ - now, next_deadline_.left(now)));
    }
}

void EchoEngine::step() {
    if (options_.step.count() > 0) {
        // A late step does not make the next ones hurry.
        next_step_ = std::max(next_step_, clock_.now() + (-options_.step)) + options_.step;
    }
    steps_.fetch_add(1, std::memory_order_relaxed);
    std::uint64_t produced = 0;
    bool any_ended = false;
    for (Sequence& s : running_) {
        const std::uint32_t before = s.produced;
        const bool ended = produce(s, slots_[s.slot]);
        produced += s.produced - before;
        if (ended) {
            any_ended = true;
            leave_slot(s);
            held_tokens_.fetch_sub(s.request.prompt.size() + before, std::memory_order_relaxed);
            s.sink = nullptr;
        } else {
            held_tokens_.fetch_add(s.produced - before, std::memory_order_relaxed);
        }
    }
    decode_tokens_.fetch_add(produced, std::memory_order_relaxed);
    if (any_ended) {
        std::erase_if(running_, has_ended);
        // Before the receivers learn of the end: who then asks for the load sees it gone.
        const std::scoped_lock lock(mutex_);
        running_count_ = static_cast<std::uint32_t>(running_.size());
        if (!waiting_.empty()) notify();
        if (running_.empty() && waiting_.empty()) empty_.notify_all();
    }
    deliver();
    if (!next_deadline_.is_never() && next_deadline_.reached(clock_.now())) notify();
}

/// One step of one sequence into its receiver's batch. True when that was its last.
bool EchoEngine::produce(Sequence& s, SinkSlot& slot) {
    const GenerateRequest& request = s.request;
    StepBatch& batch = slot.batch;
    if (batch.events.capacity() == 0) {
        batch.events.reserve(slot.users);
        batch.tokens.reserve(std::size_t{slot.users} * options_.tokens_per_step);
    }
    StepEvent& event = batch.events.emplace_back();
    event.id = request.id;
    event.first = static_cast<std::uint32_t>(batch.tokens.size());
    if (s.produced == 0) fill_usage(s, event);
    while (event.count < options_.tokens_per_step && !event.finish) {
        const TokenId token = request.prompt[s.position];
        if (++s.position == s.prompt_tokens()) s.position = 0;
        auto& out = batch.tokens.emplace_back();
        out.token = token;
        out.top_first = static_cast<std::uint32_t>(batch.top.size());
        for (std::int32_t j = 0; j < request.top_logprobs; ++j) {
            batch.top.push_back({token + static_cast<TokenId>(j), static_cast<float>(-j)});
        }
        out.top_count = static_cast<std::uint32_t>(std::max(request.top_logprobs, 0));
        ++event.count;
        ++s.produced;
        if (options_.fail_after_tokens != 0 && s.produced == options_.fail_after_tokens) {
            event.finish = FinishReason::kError;
            event.error = error(ErrorCode::kInternal,
                                "the echo engine fails after {} tokens, as told", s.produced)
                              .value();
        } else if (!request.stop_token_ids.empty() && s.produced > request.min_tokens &&
                   std::ranges::find(request.stop_token_ids, token) !=
                       request.stop_token_ids.end()) {
            event.finish = FinishReason::kStop;
        } else if (s.produced == request.max_tokens) {
            event.finish = FinishReason::kLength;
        }
    }
    if (event.finish) fill_usage(s, event);
    return event.finish.has_value();
}

void EchoEngine::fill_usage(const Sequence& s, StepEvent& event) const {
    event.prompt_tokens = s.prompt_tokens();
    event.cached_tokens = std::min(options_.cached_tokens, event.prompt_tokens - 1);
}

/// Ends a sequence that has a slot, without another token. The caller removes it from its list
/// (sink is null).
void EchoEngine::finish_early(Sequence& s, FinishReason reason) {
    StepEvent& event = slots_[s.slot].batch.events.emplace_back();
    event.id = s.request.id;
    event.first = static_cast<std::uint32_t>(slots_[s.slot].batch.tokens.size());
    event.finish = reason;
    fill_usage(s, event);
    leave_slot(s);
    s.sink = nullptr;
}

std::uint32_t EchoEngine::take_slot(const Sequence& s) {
    auto slot = std::ranges::find(slots_, s.sink, &SinkSlot::sink);
    if (slot == slots_.end()) slot = std::ranges::find(slots_, nullptr, &SinkSlot::sink);
    if (slot == slots_.end()) slot = slots_.emplace(slots_.end());
    slot->sink = s.sink;
    ++slot->users;
    return static_cast<std::uint32_t>(slot - slots_.begin());
}

void EchoEngine::leave_slot(const Sequence& s) {
    STATOR_ASSERT(slots_[s.slot].users > 0);
    --slots_[s.slot].users;
}

/// Hands every receiver what it got. Without the lock: a receiver may call cancel().
void EchoEngine::deliver() {
    for (SinkSlot& slot : slots_) {
        if (!slot.batch.events.empty()) {
            slot.sink->on_step(std::move(slot.batch));
            slot.batch = {};
        }
        if (slot.users == 0) slot.sink = nullptr;
    }
}

}  // namespace

std::unique_ptr<Engine> make_echo_engine(EchoOptions options) {
    return std::make_unique<EchoEngine>(options);
}

}  // namespace stator::engine
