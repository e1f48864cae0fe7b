#include "stator/engine/remote/call_queue.h"

#include <algorithm>
#include <utility>

#include "stator/engine/remote/call_room.h"
#include "stator/engine/remote/pool_calls.h"
#include "stator/estimate/time_model.h"
#include "stator/routing/tenant.h"
#include "stator/runtime/asio.h"

namespace stator::engine {
namespace {

using router::Offered;
using routing::tenant_number;

/// Time frees ranks too, and loads are read when one asks.
constexpr std::chrono::milliseconds kTick{20};
/// Scored in one pass: some 20 µs each.
constexpr std::size_t kMostAsked = 32;
/// A pass is followed by so many times as long without one.
constexpr int kRest = 4;
/// A tenant's turn: less than any request, so that turns are as short as they can be.
constexpr double kQuantum_s = 0.001;
constexpr std::array<const char*, 3> kClasses = {"interactive", "standard", "batch"};

router::AdmissionOptions admission(const PoolQueueOptions& o) {
    router::AdmissionOptions a;
    a.most_requests = o.most_requests;
    a.most_per_tenant = o.most_per_tenant;
    a.promote_after_s = o.promote_after_s;
    a.quantum_s = kQuantum_s;
    return a;
}

metrics::Counter& refusals(metrics::Registry& registry, const std::string& model,
                           const char* reason) {
    return registry.counter("stator_router_queue_refusals_total",
                            "Requests that ended without a worker, having waited at the router or "
                            "been refused a place there.",
                            {{"model", model}, {"reason", reason}});
}

}  // namespace

CallQueue::CallQueue(PoolCalls& calls, runtime::Loop& loop, metrics::Registry& registry)
    : calls_(calls),
      loop_(loop),
      zero_(calls.clock.now()),
      full_(refusals(registry, calls.options.card.name, "full")),
      displaced_(refusals(registry, calls.options.card.name, "displaced")),
      too_late_(refusals(registry, calls.options.card.name, "too_late")),
      expired_(refusals(registry, calls.options.card.name, "expired")),
      timer_(runtime::asio_context(loop)) {
    const std::string& model = calls.options.card.name;
    for (std::size_t i = 0; i < kClasses.size(); ++i) {
        const metrics::Labels labels{{"class", kClasses[i]}, {"model", model}};
        lengths_[i] = &registry.gauge("stator_router_queue_requests",
                                      "Requests that wait at the router.", labels);
        waits_[i] = &registry.histogram("stator_router_queue_seconds",
                                        "Waited at the router, of requests that got a worker.",
                                        metrics::exponential_bounds(0.005, 2, 15), labels);
    }
    take_options(calls.options.queue);
}

CallQueue::~CallQueue() = default;

void CallQueue::set_options(const PoolQueueOptions& options) {
    {
        const std::scoped_lock lock(mutex_);
        take_options(options);
    }
    nudge();  // a longer hold lets some go
}

/// Under the lock, or where nobody else is yet.
void CallQueue::take_options(const PoolQueueOptions& options) {
    queue_.set_options(admission(options));
    queue_.clear_weights();
    for (const auto& [name, weight] : options.weights) {
        queue_.set_weight(tenant_number(name), weight);
    }
    hold_s_.store(options.hold.queue_s, std::memory_order_relaxed);
    hold_share_.store(options.hold.waiting_share, std::memory_order_relaxed);
    most_.store(options.most_requests, std::memory_order_relaxed);
}

/// What it takes of a rank: a token to be generated is as much work as one of the prompt.
router::Waiting CallQueue::describe(const Call& call) const {
    constexpr std::uint32_t kUsualOutput = 256;
    const protocol::GenerateRequest& request = call.life.original();
    router::Waiting w;
    w.id = request.id.value;
    w.tenant = tenant_number(request.tenant);
    w.urgency = class_of(request.priority);
    w.arrival = since_start(call.submitted);
    if (!request.deadline.is_never()) {
        const TimePoint now = calls_.clock.now();
        w.deadline = since_start(now) + request.deadline.left(now);
    }
    std::uint32_t output = std::min(request.max_tokens, kUsualOutput);
    if (request.hints && request.hints->expected_output_tokens > 0) {
        output = std::min(request.max_tokens, request.hints->expected_output_tokens);
    }
    w.work_s = estimate::PrefillTime{}.token_seconds(
        static_cast<double>(request.prompt.size()) + output, 0);
    return w;
}

Result<void> CallQueue::push(const std::shared_ptr<Call>& call, bool arriving) {
    const router::Waiting waiting = describe(*call);
    std::shared_ptr<Call> pushed_out;
    {
        const std::scoped_lock lock(mutex_);
        auto displaced = queue_.push(waiting, since_start(calls_.clock.now()));
        if (!displaced) {
            const bool late = displaced.error().code == ErrorCode::kDeadlineExceeded;
            (late ? expired_ : full_).add();
            return tl::unexpected(std::move(displaced.error()));
        }
        calls_here_.emplace(waiting.id, call);
        if (*displaced) {
            const auto at = calls_here_.find((*displaced)->id);
            pushed_out = std::move(at->second);
            calls_here_.erase(at);
        }
        CallRoom* const home = call->home.load(std::memory_order_seq_cst);
        // Before anything else that this room is told of it.
        const bool told = !arriving || home->loop().post([keep = calls_.shared_from_this(), home,
                                                          call] { home->settle_queued(call); });
        if (!told) {
            (void)queue_.remove(waiting.id);
            calls_here_.erase(waiting.id);
        }
        show();
        if (!told) return error(ErrorCode::kUnavailable, "the engine is stopping");
    }
    if (pushed_out) {
        displaced_.add();
        Error e = calls_.refuse_full();
        e.message = "a more urgent request took its place in the full queue";
        CallRoom* const home = pushed_out->home.load(std::memory_order_seq_cst);
        home->loop().post([keep = calls_.shared_from_this(), home, pushed_out, e = std::move(e)] {
            home->out_of_queue(pushed_out, e);
        });
    }
    order();
    return {};
}

bool CallQueue::remove(const Call& call, bool expired) {
    const std::scoped_lock lock(mutex_);
    const std::uint64_t id = call.life.original().id.value;
    if (!queue_.remove(id)) return false;
    calls_here_.erase(id);
    if (expired) expired_.add();
    show();
    return true;
}

/// Under the lock.
void CallQueue::show() {
    size_.store(queue_.size(), std::memory_order_relaxed);
    for (std::size_t i = 0; i < lengths_.size(); ++i) {
        lengths_[i]->set(static_cast<double>(queue_.size(static_cast<router::RequestClass>(i))));
    }
}

void CallQueue::order() {
    if (ordered_.exchange(true, std::memory_order_acq_rel)) return;
    loop_.post([this, weak = calls_.weak_from_this()] {
        if (const auto keep = weak.lock()) wanted();
    });
}

void CallQueue::wanted() {
    if (calls_.clock.now() < not_before_) return arm(not_before_);
    pass();
}

void CallQueue::arm(TimePoint at) {
    if (armed_ && *armed_ <= at) return;
    armed_ = at;
    timer_.expires_after(Deadline::at(at).left(calls_.clock.now()));
    timer_.async_wait([this, weak = calls_.weak_from_this()](const auto& ec) {
        const auto keep = weak.lock();
        if (ec || !keep) return;
        armed_.reset();
        wanted();
    });
}

void CallQueue::pass() {
    ordered_.store(false, std::memory_order_release);
    const TimePoint begin = calls_.clock.now();
    std::vector<Gone> gone;
    {
        const std::scoped_lock lock(mutex_);
        if (queue_.empty()) return;
        queue_.offer(since_start(begin), kMostAsked,
                     [&](const router::Waiting& w) { return ask(w, begin); });
        gone.swap(gone_);
        show();
    }
    for (Gone& g : gone) {
        CallRoom* const home = g.call->home.load(std::memory_order_seq_cst);
        home->loop().post([keep = calls_.shared_from_this(), home, call = std::move(g.call),
                           why = std::move(g.why)] { home->out_of_queue(call, why); });
    }
    const TimePoint end = calls_.clock.now();
    not_before_ = end + kRest * (end - begin);
    if (!empty()) arm(std::max(not_before_, begin + kTick));
}

/// Under the lock.
Offered CallQueue::ask(const router::Waiting& waiting, TimePoint now) {
    const auto at = calls_here_.find(waiting.id);
    Call& call = *at->second;
    const protocol::GenerateRequest& request = call.life.original();
    // It will get nothing any more; its room takes it out.
    if (call.cancelled.load(std::memory_order_relaxed) || request.deadline.reached(now)) {
        return Offered::kNotNow;
    }
    if (now >= call.tried_until) call.tried.clear();
    // What waits behind it would get no more; those for other ranks might.
    const bool unbound = call.tried.empty() && !request.hints && request.media.empty();
    const auto chosen = calls_.choose(call, true);
    if (chosen && !*chosen) return Offered::kNotNow;
    if (!chosen && chosen.error().code == ErrorCode::kOverloaded) {
        return unbound ? Offered::kNobody : Offered::kNotNow;
    }
    Gone& gone = gone_.emplace_back(Gone{std::move(at->second), std::nullopt});
    calls_here_.erase(at);
    if (chosen) {
        waits_[static_cast<std::size_t>(waiting.urgency)]->observe(
            to_seconds(now - call.queued_since));
    } else {
        if (chosen.error().code == ErrorCode::kDeadlineExceeded) too_late_.add();
        gone.why = chosen.error();
    }
    return Offered::kTaken;
}

std::optional<routing::PoolRouter::QueueState> CallQueue::state() const {
    if (!on() && empty()) return std::nullopt;
    routing::PoolRouter::QueueState s;
    s.most = most_.load(std::memory_order_relaxed);
    s.hold_s = hold().queue_s;
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < s.waiting.size(); ++i) {
        s.waiting[i] = queue_.size(static_cast<router::RequestClass>(i));
    }
    s.tenants = queue_.tenants();
    s.work_s = queue_.work_s();
    return s;
}

}  // namespace stator::engine
