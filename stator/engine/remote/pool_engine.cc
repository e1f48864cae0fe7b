#include "stator/engine/remote/pool_engine.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/engine/remote/choose_rank.h"
#include "stator/legs/request_life.h"
#include "stator/runtime/asio.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;

constexpr std::uint32_t kRetryAfterMs = 1000;
/// A worker ends requests at their deadline; this side does where it has not, so much later.
constexpr std::chrono::milliseconds kDeadlineSlack{250};

class Core;
class Lane;

/// A request on its way. It lives on one loop at a time (that of its worker, `at`); whoever wants
/// something of it goes there.
struct Call : std::enable_shared_from_this<Call> {
    Call(GenerateRequest request, std::uint32_t migrations, std::shared_ptr<StepSink> s)
        : id(request.id),
          deadline(request.deadline),
          life(std::move(request), migrations),
          sink(std::move(s)) {}

    const RequestId id;
    const Deadline deadline;
    std::atomic<runtime::Loop*> at{nullptr};
    std::atomic<bool> cancelled{false};

    // Of its loop.
    legs::RequestLife life;
    std::shared_ptr<StepSink> sink;
    std::shared_ptr<fleet::Worker> worker;
    std::optional<requests::StreamId> stream;
    std::vector<std::uint64_t> tried;  ///< workers that refused or were lost, since the last token
    std::optional<Error> refusal;
    bool has_waited = false;

    // Guarded by the engine's mutex.
    std::multimap<TimePoint, std::weak_ptr<Call>>::iterator due;
    bool has_due = false;
};

/// What a loop keeps: receives the steps of all workers on it.
class Lane final : public fleet::StreamEvents {
  public:
    Lane(runtime::Loop& l, Core& core) : loop(l), core_(core) {}

    void on_step(std::uint64_t tag, const StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override;
    void on_turn_end() override { flush(); }
    void on_stream_lost(std::uint64_t tag, const Error& why) override;

    /// An event that no worker's step brought.
    void deliver(const Call& call, StepEvent event) {
        batch_for(call.sink).events.push_back(std::move(event));
        flush();
    }

    runtime::Loop& loop;

  private:
    struct Delivery {
        std::shared_ptr<StepSink> sink;
        StepBatch batch;
    };
    StepBatch& batch_for(const std::shared_ptr<StepSink>& sink);
    void flush();

    Core& core_;
    std::vector<Delivery> deliveries_;  ///< few: one per receiver that had something this turn
};

/// Shared with everything that is posted, so that what arrives late finds it.
class Core : public std::enable_shared_from_this<Core> {
  public:
    Core(PoolEngineOptions options, fleet::Fleet& fleet, runtime::LoopPool& loops,
         metrics::Registry& registry, const Clock& clock);

    void open();
    Result<void> submit(GenerateRequest request, std::shared_ptr<StepSink> sink);
    void cancel(RequestId id);
    void stop(Deadline deadline);

    [[nodiscard]] std::shared_ptr<const fleet::FleetView> view() const {
        const std::scoped_lock lock(view_mutex_);
        return view_;
    }
    /// Null where the pool is not there any more.
    [[nodiscard]] static const fleet::PoolView* pool_in(const fleet::FleetView& view,
                                                        const std::string& id) {
        const auto at = std::ranges::find(view.pools, id, &fleet::PoolView::id);
        return at == view.pools.end() ? nullptr : &*at;
    }

    // On the call's loop.
    void place(const std::shared_ptr<Call>& call, const Choice& choice);
    void refused(Call& call, Error why);
    void lost(Call& call, const Error& why);
    void finished(Call& call);
    void end(Call& call, StepEvent event);

    const PoolEngineOptions options;

  private:
    void route(const std::shared_ptr<Call>& call);
    void go(const std::shared_ptr<Call>& call, Choice choice);
    void wait(const std::shared_ptr<Call>& call);
    void wake_waiting();
    void take_view(std::shared_ptr<const fleet::FleetView> view);
    void on_loop(const std::shared_ptr<Call>& call, void (Core::*then)(Call&));
    void cancel_here(Call& call);
    void expire(Call& call);
    void overdue(Call& call);
    void remember_due(Call& call, TimePoint due);
    void arm(TimePoint due);
    void on_timer();
    [[nodiscard]] Lane& lane_of(runtime::Loop& loop);
    [[nodiscard]] Error nobody_ready() const;
    [[nodiscard]] std::optional<Choice> choose(const Call& call, bool& any_ready);

    fleet::Fleet& fleet_;
    const Clock& clock_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    metrics::Counter& moved_;
    metrics::Counter& retried_;
    metrics::Counter& waited_;
    metrics::Counter& unserved_;

    mutable std::mutex view_mutex_;
    std::shared_ptr<const fleet::FleetView> view_;
    std::atomic<std::uint64_t> ties_{0};

    std::mutex mutex_;  ///< all below
    std::condition_variable empty_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Call>> calls_;
    std::deque<std::shared_ptr<Call>> waiting_;
    std::multimap<TimePoint, std::weak_ptr<Call>> due_;
    boost::asio::steady_timer timer_;
    Deadline armed_;
    bool stopping_ = false;
};

// --- a loop's lane

StepBatch& Lane::batch_for(const std::shared_ptr<StepSink>& sink) {
    for (Delivery& d : deliveries_) {
        if (d.sink == sink) return d.batch;
    }
    return deliveries_.emplace_back(Delivery{sink, {}}).batch;
}

void Lane::flush() {
    for (Delivery& d : deliveries_) d.sink->on_step(std::move(d.batch));
    deliveries_.clear();
}

void Lane::on_step(std::uint64_t tag, const StepEvent& event,
                   std::span<const protocol::TokenOutput> tokens,
                   std::span<const protocol::TokenLogprob> top) {
    // The call is kept by the engine until finished().
    Call& call = *reinterpret_cast<Call*>(tag);
    StepEvent seen = event;
    seen.id = call.id;
    if (!call.life.take(seen, tokens)) {
        call.stream.reset();
        if (call.life.refused()) return core_.refused(call, *event.error);
        return core_.lost(call, *event.error);
    }
    if (!tokens.empty() && !call.tried.empty()) call.tried.clear();
    StepBatch& batch = batch_for(call.sink);
    seen.first = static_cast<std::uint32_t>(batch.tokens.size());
    seen.count = static_cast<std::uint32_t>(tokens.size());
    const auto top_before = static_cast<std::uint32_t>(batch.top.size());
    for (protocol::TokenOutput token : tokens) {
        token.top_first += top_before;
        batch.tokens.push_back(token);
    }
    batch.top.insert(batch.top.end(), top.begin(), top.end());
    const bool ended = seen.finish.has_value();
    batch.events.push_back(std::move(seen));
    if (!ended) return;
    call.stream.reset();
    core_.finished(call);
}

void Lane::on_stream_lost(std::uint64_t tag, const Error& why) {
    Call& call = *reinterpret_cast<Call*>(tag);
    call.stream.reset();
    core_.lost(call, why);
}

// --- the engine

Core::Core(PoolEngineOptions o, fleet::Fleet& fleet, runtime::LoopPool& loops,
           metrics::Registry& registry, const Clock& clock)
    : options(std::move(o)),
      fleet_(fleet),
      clock_(clock),
      moved_(registry.counter("stator_requests_moved_total",
                              "Times a request went on at another worker after its own was lost.",
                              {{"model", options.card.name}})),
      retried_(registry.counter("stator_requests_retried_total",
                                "Times a worker refused and another one was asked.",
                                {{"model", options.card.name}})),
      waited_(registry.counter("stator_requests_waited_total",
                               "Requests that came when no worker was ready.",
                               {{"model", options.card.name}})),
      unserved_(registry.counter("stator_requests_unserved_total",
                                 "Requests that ended because no worker could take them.",
                                 {{"model", options.card.name}})),
      view_(fleet.view()),
      timer_(runtime::asio_context(loops.at(0))) {
    for (std::size_t i = 0; i < loops.size(); ++i) {
        lanes_.push_back(std::make_unique<Lane>(loops.at(i), *this));
    }
}

void Core::open() {
    fleet_.watch([weak = weak_from_this()](std::shared_ptr<const fleet::FleetView> view) {
        if (const auto self = weak.lock()) self->take_view(std::move(view));
    });
}

Lane& Core::lane_of(runtime::Loop& loop) {
    for (const auto& lane : lanes_) {
        if (&lane->loop == &loop) return *lane;
    }
    return *lanes_.front();
}

void Core::take_view(std::shared_ptr<const fleet::FleetView> view) {
    const fleet::PoolView* pool = pool_in(*view, options.pool);
    const bool any_ready = pool != nullptr && !pool->ready.empty();
    {
        const std::scoped_lock lock(view_mutex_);
        view_ = std::move(view);
    }
    if (any_ready) wake_waiting();
}

Error Core::nobody_ready() const {
    auto e =
        error(ErrorCode::kUnavailable,
              "no worker that serves {} is ready at the moment; try again soon", options.card.name);
    e.value().retryable = true;
    e.value().retry_after_ms = kRetryAfterMs;
    return e.value();
}

std::optional<Choice> Core::choose(const Call& call, bool& any_ready) {
    const auto now = view();
    const fleet::PoolView* pool = pool_in(*now, options.pool);
    any_ready = pool != nullptr && !pool->ready.empty();
    if (!any_ready) return std::nullopt;
    return choose_rank(pool->ready, call.tried,
                       ties_.fetch_add(0x9E3779B97F4A7C15ULL, std::memory_order_relaxed));
}

Result<void> Core::submit(GenerateRequest request, std::shared_ptr<StepSink> sink) {
    if (request.prompt.empty() || request.max_tokens == 0) {
        return error(ErrorCode::kInvalidArgument,
                     "a request needs at least one prompt token and one token to generate");
    }
    if (request.prompt.size() + request.max_tokens > options.card.context_tokens) {
        return error(ErrorCode::kInvalidArgument,
                     "{} prompt tokens and {} to generate do not fit the context of {} tokens",
                     request.prompt.size(), request.max_tokens, options.card.context_tokens);
    }
    auto call = std::make_shared<Call>(std::move(request), options.max_migrations, std::move(sink));
    bool any_ready = false;
    const auto choice = choose(*call, any_ready);
    if (any_ready && !choice) {
        auto full = error(ErrorCode::kOverloaded,
                          "all workers that serve {} have as many requests as they take",
                          options.card.name);
        full.value().retryable = true;
        full.value().retry_after_ms = kRetryAfterMs;
        return full;
    }
    {
        const std::scoped_lock lock(mutex_);
        if (stopping_) {
            if (choice) choice->worker->reserve(choice->rank, -1);
            return error(ErrorCode::kUnavailable, "the server is stopping");
        }
        if (!choice && waiting_.size() >= options.max_waiting) {
            unserved_.add();
            return tl::unexpected(nobody_ready());
        }
        calls_.emplace(call->id.value, call);
        call->at.store(choice ? &choice->worker->loop() : &lanes_.front()->loop);
        if (!call->deadline.is_never()) {
            const TimePoint now = clock_.now();
            remember_due(*call, now + call->deadline.left(now) + kDeadlineSlack);
        }
    }
    if (choice) {
        go(call, *choice);
    } else {
        wait(call);
    }
    return {};
}

/// To the worker's loop, which is the call's from now on.
void Core::go(const std::shared_ptr<Call>& call, Choice choice) {
    runtime::Loop& loop = choice.worker->loop();
    call->at.store(&loop);
    if (loop.on_this_thread()) return place(call, choice);
    if (!loop.post([self = shared_from_this(), call, choice] { self->place(call, choice); })) {
        choice.worker->reserve(choice.rank, -1);
    }
}

void Core::place(const std::shared_ptr<Call>& call, const Choice& choice) {
    if (call->life.ended()) return choice.worker->reserve(choice.rank, -1);
    if (call->cancelled.load()) {
        choice.worker->reserve(choice.rank, -1);
        return cancel_here(*call);
    }
    call->worker = choice.worker;
    auto stream =
        choice.worker->open(call->life.next_request(), choice.rank, lane_of(choice.worker->loop()),
                            reinterpret_cast<std::uint64_t>(call.get()));
    if (stream) {
        call->stream = *stream;
    } else {
        refused(*call, std::move(stream.error()));
    }
}

/// Another worker, as long as there is one that was not asked yet.
void Core::refused(Call& call, Error why) {
    call.tried.push_back(call.worker->id());
    call.refusal = std::move(why);
    retried_.add();
    route(call.shared_from_this());
}

void Core::lost(Call& call, const Error& why) {
    if (call.life.ended()) return;
    if (call.cancelled.load()) return cancel_here(call);
    call.tried.push_back(call.worker->id());
    if (auto event = call.life.lost(why)) {
        if (event->finish == FinishReason::kError) unserved_.add();
        return end(call, std::move(*event));
    }
    moved_.add();
    log_info("A request goes on at another worker.",
             {{"request", call.id.value},
              {"tokens_so_far", call.life.delivered_tokens()},
              {"moves", call.life.migrations()},
              {"reason", why.message}});
    // What this turn brought before the loss must leave before anything that another loop brings.
    lane_of(*call.at.load()).on_turn_end();
    route(call.shared_from_this());
}

void Core::route(const std::shared_ptr<Call>& call) {
    bool any_ready = false;
    if (const auto choice = choose(*call, any_ready)) return go(call, *choice);
    if (call->has_waited || (call->refusal && any_ready)) {
        unserved_.add();
        return end(*call, call->life.end(FinishReason::kError,
                                         call->refusal ? *call->refusal : nobody_ready()));
    }
    wait(call);
}

void Core::wait(const std::shared_ptr<Call>& call) {
    waited_.add();
    bool full = false;
    {
        const std::scoped_lock lock(mutex_);
        full = waiting_.size() >= options.max_waiting;
        if (!full) {
            waiting_.push_back(call);
            const TimePoint until = clock_.now() + options.wait_for_worker;
            if (!call->has_due || until < call->due->first) remember_due(*call, until);
        }
    }
    if (full) {
        unserved_.add();
        return end(*call, call->life.end(FinishReason::kError, nobody_ready()));
    }
    // A worker may have become ready between the look and the wait.
    const fleet::PoolView* pool = nullptr;
    const auto now = view();
    pool = pool_in(*now, options.pool);
    if (pool != nullptr && !pool->ready.empty()) wake_waiting();
}

void Core::wake_waiting() {
    std::deque<std::shared_ptr<Call>> woken;
    {
        const std::scoped_lock lock(mutex_);
        woken.swap(waiting_);
    }
    for (const auto& call : woken) {
        on_loop(call, &Core::overdue);
    }
}

/// Runs `then` where the call lives, unless it has ended by then; follows it where it moves.
void Core::on_loop(const std::shared_ptr<Call>& call, void (Core::*then)(Call&)) {
    runtime::Loop* loop = call->at.load();
    static_cast<void>(loop->post([self = shared_from_this(), call, then, loop] {
        if (call->at.load() != loop) return self->on_loop(call, then);
        if (!call->life.ended()) (self.get()->*then)(*call);
    }));
}

void Core::cancel(RequestId id) {
    std::shared_ptr<Call> call;
    {
        const std::scoped_lock lock(mutex_);
        const auto at = calls_.find(id.value);
        if (at == calls_.end()) return;
        call = at->second;
    }
    call->cancelled.store(true);
    on_loop(call, &Core::cancel_here);
}

void Core::cancel_here(Call& call) {
    if (call.life.ended()) return;
    if (call.stream) call.worker->cancel(*call.stream);
    call.stream.reset();
    end(call, call.life.end(FinishReason::kCancelled));
}

/// A waiting call's worker may be there now, or its time to wait is over; any call's deadline too.
void Core::overdue(Call& call) {
    const TimePoint now = clock_.now();
    if (call.deadline.reached(now)) return expire(call);
    if (call.stream) return;
    bool waited = false;
    {
        const std::scoped_lock lock(mutex_);
        waited = std::erase_if(waiting_, [&](const auto& c) { return c.get() == &call; }) > 0;
        if (!call.deadline.is_never()) {
            remember_due(call, now + call.deadline.left(now) + kDeadlineSlack);
        }
    }
    // Still in the queue: nobody woke it, its time is over.
    call.has_waited = waited;
    call.tried.clear();
    call.refusal.reset();
    route(call.shared_from_this());
}

void Core::expire(Call& call) {
    if (call.stream) call.worker->cancel(*call.stream);
    call.stream.reset();
    end(call,
        call.life.end(FinishReason::kCancelled,
                      error(ErrorCode::kDeadlineExceeded, "The request's time ran out.").value()));
}

/// With the mutex.
void Core::remember_due(Call& call, TimePoint due) {
    if (call.has_due) due_.erase(call.due);
    call.due = due_.emplace(due, call.weak_from_this());
    call.has_due = true;
    arm(due);
}

/// With the mutex. The timer is of the first loop: it is set there.
void Core::arm(TimePoint due) {
    if (armed_ <= Deadline::at(due)) return;
    armed_ = Deadline::at(due);
    static_cast<void>(lanes_.front()->loop.post([weak = weak_from_this(), due] {
        const auto self = weak.lock();
        if (!self) return;
        self->timer_.expires_after(Deadline::at(due).left(self->clock_.now()));
        self->timer_.async_wait([weak](const auto& ec) {
            const auto core = weak.lock();
            if (!ec && core) core->on_timer();
        });
    }));
}

void Core::on_timer() {
    std::vector<std::shared_ptr<Call>> due;
    {
        const std::scoped_lock lock(mutex_);
        armed_ = Deadline::never();
        const TimePoint now = clock_.now();
        while (!due_.empty() && due_.begin()->first <= now) {
            if (auto call = due_.begin()->second.lock()) {
                call->has_due = false;
                due.push_back(std::move(call));
            }
            due_.erase(due_.begin());
        }
        if (!due_.empty()) arm(due_.begin()->first);
    }
    for (const auto& call : due) on_loop(call, &Core::overdue);
}

void Core::end(Call& call, StepEvent event) {
    lane_of(*call.at.load()).deliver(call, std::move(event));
    finished(call);
}

void Core::finished(Call& call) {
    std::shared_ptr<Call> last;
    bool empty = false;
    {
        const std::scoped_lock lock(mutex_);
        if (call.has_due) due_.erase(call.due);
        call.has_due = false;
        const auto at = calls_.find(call.id.value);
        if (at == calls_.end()) return;
        last = std::move(at->second);
        calls_.erase(at);
        std::erase_if(waiting_, [&](const auto& c) { return c.get() == &call; });
        empty = calls_.empty();
    }
    if (empty) empty_.notify_all();
    // The caller may still look at the call: it goes when this turn is over.
    call.at.load()->post([last] {});
}

void Core::stop(Deadline deadline) {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    const auto is_empty = [this] { return calls_.empty(); };
    if (deadline.is_never()) {
        empty_.wait(lock, is_empty);
        return;
    }
    if (empty_.wait_for(lock, deadline.left(clock_.now()), is_empty)) return;
    std::vector<std::shared_ptr<Call>> open;
    for (const auto& [id, call] : calls_) open.push_back(call);
    lock.unlock();
    for (const auto& call : open) {
        call->cancelled.store(true);
        on_loop(call, &Core::cancel_here);
    }
    lock.lock();
    empty_.wait(lock, is_empty);
}

class PoolEngine final : public Engine {
  public:
    explicit PoolEngine(std::shared_ptr<Core> core) : core_(std::move(core)) {
        const protocol::ModelCard& card = core_->options.card;
        info_.kind = "pool";
        info_.device = "fleet";
        info_.context_tokens = card.context_tokens;
        info_.block_tokens = card.block_tokens;
        info_.max_top_logprobs = card.max_top_logprobs;
    }
    ~PoolEngine() override { core_->stop(Deadline::at({})); }

    [[nodiscard]] const EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override {
        return core_->submit(std::move(request), std::move(sink));
    }
    void cancel(RequestId id) override { core_->cancel(id); }
    [[nodiscard]] protocol::LoadReport load() const override;
    /// Workers have metrics of their own.
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override { return {}; }
    [[nodiscard]] bool healthy() const override {
        const auto view = core_->view();
        const auto* pool = Core::pool_in(*view, core_->options.pool);
        return pool != nullptr && !pool->ready.empty();
    }
    void stop(Deadline deadline) override { core_->stop(deadline); }

  private:
    std::shared_ptr<Core> core_;
    EngineInfo info_;
};

protocol::LoadReport PoolEngine::load() const {
    protocol::LoadReport sum;
    const auto view = core_->view();
    const auto* pool = Core::pool_in(*view, core_->options.pool);
    if (pool == nullptr) return sum;
    for (const auto& worker : pool->ready) {
        for (const protocol::RankInfo& rank : worker->info()->ranks) {
            const protocol::LoadReport load = worker->load(rank.rank);
            sum.running += load.running;
            sum.waiting += load.waiting;
            sum.running_limit += load.running_limit;
            sum.waiting_limit += load.waiting_limit;
            sum.waiting_tokens += load.waiting_tokens;
            sum.kv_used_tokens += load.kv_used_tokens;
            sum.kv_cached_tokens += load.kv_cached_tokens;
            sum.kv_total_tokens += load.kv_total_tokens;
        }
    }
    return sum;
}

}  // namespace

std::unique_ptr<Engine> make_pool_engine(PoolEngineOptions options, fleet::Fleet& fleet,
                                         runtime::LoopPool& loops, metrics::Registry& registry,
                                         const Clock& clock) {
    auto core = std::make_shared<Core>(std::move(options), fleet, loops, registry, clock);
    core->open();
    return std::make_unique<PoolEngine>(std::move(core));
}

}  // namespace stator::engine
