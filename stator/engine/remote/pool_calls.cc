#include "stator/engine/remote/pool_calls.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/engine/remote/call_room.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;

constexpr std::uint32_t kRetryAfterMs = 1'000;
/// No rank has as little before it.
constexpr routing::Hold kNowhere{.queue_s = -1, .waiting_share = 0};

metrics::Labels labels(const PoolEngineOptions& options) {
    // Not by pool: each upgrade makes a new one, and a registry forgets nothing.
    return {{"model", options.card.name}};
}

}  // namespace

PoolCalls::PoolCalls(PoolEngineOptions o, runtime::LoopPool& loops, metrics::Registry& registry,
                     const Clock& clock_)
    : options(std::move(o)),
      clock(clock_),
      migrations(registry.counter("stator_pool_migrations_total",
                                  "Requests that went on with another worker after a loss.",
                                  labels(options))),
      refused_elsewhere(registry.counter("stator_pool_refusals_total",
                                         "Refusals by workers after which another one was tried.",
                                         labels(options))),
      splits(registry.counter("stator_pool_split_requests_total",
                              "Requests whose prompt was sent to another rank than their output.",
                              labels(options))),
      encoded_again(registry.counter(
          "stator_pool_encoded_again_total",
          "Media items encoded again because their embeddings were lost.", labels(options))),
      recomputed(registry.counter("stator_pool_handoffs_given_up_total",
                                  "Prompts computed again because no rank took their KV in time.",
                                  labels(options))),
      released(registry.counter("stator_pool_handoffs_released_total",
                                "Handoffs that were made and not used.", labels(options))),
      waiting_gauge(registry.gauge("stator_pool_waiting_requests",
                                   "Requests for which no worker is ready.", labels(options))),
      router_(options.router) {
    if (!router_) {
        router_ = std::make_shared<routing::PoolRouter>(routing::PoolRouterOptions{}, options.card,
                                                        nullptr, registry, clock_);
    }
    for (std::size_t i = 0; i < loops.size(); ++i) {
        rooms_.push_back(std::make_unique<CallRoom>(*this, loops.at(i)));
    }
    queue_ = std::make_unique<CallQueue>(*this, loops.at(loops.size() - 1), registry);
}

PoolCalls::~PoolCalls() = default;

std::shared_ptr<const PoolCalls::Ranks> PoolCalls::ranks() const {
    const std::scoped_lock lock(ranks_mutex_);
    return ranks_;
}

void PoolCalls::take_view(const fleet::FleetView& view) {
    const auto before = ranks();
    auto next = std::make_shared<Ranks>();
    const auto pool = std::ranges::find(view.pools, options.pool, &fleet::PoolView::id);
    if (pool != view.pools.end()) {
        next->known = true;
        for (const auto& worker : pool->ready) {
            const auto info = worker->info();
            for (std::uint32_t r = 0; r < info->ranks.size(); ++r) {
                const auto known = std::ranges::find_if(before->ready, [&](const auto& s) {
                    return s->worker == worker && s->rank == r;
                });
                if (known != before->ready.end()) {
                    next->ready.push_back(*known);
                    continue;
                }
                auto slot = std::make_shared<RankSlot>();
                slot->worker = worker;
                slot->rank = r;
                slot->room = &room_of(worker->loop());
                next->ready.push_back(std::move(slot));
            }
        }
    }
    std::vector<routing::PoolRank> members;
    for (const auto& slot : next->ready) {
        members.push_back({slot->worker, slot->rank, {slot, &slot->pending}});
    }
    const auto numbers = router_->set_ranks(members);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        if (next->ready[i]->route == router::kNoRank) next->ready[i]->route = numbers[i];
    }
    {
        const std::scoped_lock lock(ranks_mutex_);
        ranks_ = next;
    }
    queue_->nudge();
    if (next->ready.empty()) return;
    for (const auto& room : rooms_) {
        if (!room->has_waiting()) continue;
        room->loop().post([keep = shared_from_this(), r = room.get()] { r->wake(); });
    }
}

Result<bool> PoolCalls::choose(Call& call, bool may_wait) {
    const auto now_ready = ranks();
    std::vector<router::RankIndex> excluded;
    for (const auto& slot : now_ready->ready) {
        if (std::ranges::find(call.tried, slot) != call.tried.end()) {
            excluded.push_back(slot->route);
        }
    }
    auto route = this->route(call, excluded, may_wait);
    if (!route) {
        call.no_rank.clear();
        if (route.error().code == ErrorCode::kUnavailable && excluded.empty() &&
            !now_ready->ready.empty()) {
            call.no_rank = route.error().message;
        }
        return tl::unexpected(std::move(route.error()));
    }
    if (route->booking.value == 0) return false;
    const bool pair = route->decode_rank != router::kNoRank;
    const auto slot = std::ranges::find(now_ready->ready, route->rank, &RankSlot::route);
    const auto decoder = std::ranges::find(now_ready->ready, route->decode_rank, &RankSlot::route);
    if (slot == now_ready->ready.end() || (pair && decoder == now_ready->ready.end())) {
        // It came or went between the two.
        router_->ended(route->booking);
        return tl::unexpected(none_ready());
    }
    call.slot = *slot;
    call.slot->pending.fetch_add(1, std::memory_order_relaxed);
    if (pair) {
        call.decode_slot = *decoder;
        call.decode_slot->pending.fetch_add(1, std::memory_order_relaxed);
    }
    call.route = *route;
    call.chosen_at = clock.now();
    call.first_token = false;
    call.cached_untold = false;
    return true;
}

Result<routing::Route> PoolCalls::route(Call& call, std::span<const router::RankIndex> excluded,
                                        bool may_wait) {
    const auto step = call.life.next_step(clock.now() + kLeaseToSpare);
    release_handoffs(call);
    switch (step) {
        case legs::RequestLife::Step::kEncode:
            return router_->choose_encode(call.life.item_to_encode().digest, excluded);
        case legs::RequestLife::Step::kDecode:
            return router_->choose_decode(*call.life.to_route(), excluded);
        case legs::RequestLife::Step::kPrompt:
            break;
    }
    std::optional<routing::Hold> hold;
    if (may_wait) hold = queue_->hold();
    const auto request = call.life.to_route();
    const auto media = call.life.media_methods();
    auto chosen = router_->choose(*request, excluded, hold, call.life.may_split(), media);
    if (chosen || chosen.error().code != ErrorCode::kUnavailable || call.life.may_split() ||
        !call.life.may_split_again()) {
        return chosen;
    }
    // Those that can do it do it as a pair alone.
    auto pair = router_->choose(*request, excluded, hold, true, media);
    return pair ? std::move(pair) : std::move(chosen);
}

void PoolCalls::release_handoffs(Call& call) {
    for (auto& handoff : call.life.take_releases()) {
        if (handoff->object.empty()) {
            release(std::move(handoff));
            continue;
        }
        released.add();
        if (!call.left || call.left->id != handoff->id) continue;
        auto& worker = *call.left->worker;
        worker.loop().post([left = *std::exchange(call.left, std::nullopt)] {
            left.worker->release(left.stream);
        });
    }
}

void PoolCalls::tell_handoff_lost(const std::shared_ptr<Call>& call,
                                  const protocol::HandoffId& handoff, const Error& why) {
    CallRoom* const home = call->home.load(std::memory_order_seq_cst);
    home->loop().post([keep = shared_from_this(), home, call, handoff, why] {
        home->handoff_lost(call, handoff, why);
    });
}

void PoolCalls::release(std::shared_ptr<const protocol::Handoff> handoff) {
    released.add();
    if (options.release) options.release(std::move(handoff));
}

void PoolCalls::unbook(Call& call) {
    if (call.decode_slot) call.decode_slot->pending.fetch_sub(1, std::memory_order_relaxed);
    call.decode_slot.reset();
    if (call.route) {
        router_->ended(call.route->booking);
        queue_->nudge();
    }
    call.route.reset();
    call.slot.reset();
}

Result<void> PoolCalls::submit(protocol::GenerateRequest request, std::shared_ptr<StepSink> sink) {
    std::vector<std::shared_ptr<const protocol::Handoff>> handoffs;
    for (const auto& item : request.media) {
        if (item.embeddings) handoffs.push_back(item.embeddings);
    }
    auto accepted = check(request);
    if (accepted) accepted = accept(std::move(request), std::move(sink));
    if (accepted) return accepted;
    for (auto& handoff : handoffs) release(std::move(handoff));
    return accepted;
}

Result<void> PoolCalls::check(const protocol::GenerateRequest& request) const {
    if (request.leg == protocol::Leg::kEncode) {
        if (request.media.size() == 1 && request.media.front().content) return {};
        return error(ErrorCode::kInvalidArgument, "an encode leg has one media item, with content");
    }
    if (request.leg != protocol::Leg::kWhole) {
        return error(ErrorCode::kInvalidArgument, "a leg {} can't be asked of a pool",
                     protocol::to_string(request.leg));
    }
    for (const auto& item : request.media) {
        if (item.embeddings || item.content) continue;
        return error(ErrorCode::kInvalidArgument,
                     "a media item of the request has neither embeddings nor content");
    }
    if (request.prompt.empty() || request.max_tokens == 0 ||
        request.resumed_tokens >= request.prompt.size()) {
        return error(ErrorCode::kInvalidArgument,
                     "a request needs at least one prompt token and one token to generate");
    }
    if (request.prompt.size() + request.max_tokens > options.card.context_tokens) {
        return error(ErrorCode::kInvalidArgument,
                     "{} prompt tokens and {} to generate do not fit the context of {} tokens",
                     request.prompt.size(), request.max_tokens, options.card.context_tokens);
    }
    return {};
}

Result<void> PoolCalls::accept(protocol::GenerateRequest request, std::shared_ptr<StepSink> sink) {
    const bool encodes = request.leg == protocol::Leg::kEncode;
    const auto now_ready = ranks();
    if (!now_ready->known) return tl::unexpected(none_ready());
    auto call = std::make_shared<Call>(std::move(request), options.max_migrations, std::move(sink));
    call->submitted = clock.now();
    const bool waits = may_wait(*call);
    // What waits there waits for other ranks than those that encode.
    if (waits && !encodes && !queue_->empty() && !now_ready->ready.empty()) {
        // Nobody is passed. Who asks for the reasons is told those of now.
        const auto& hints = call->life.original().hints;
        if (hints && hints->explain) (void)router_->choose(call->life.original(), {}, kNowhere);
        return enqueue(call);
    }
    const auto chosen = choose(*call, waits);
    if (chosen && !*chosen) return enqueue(call);
    if (!chosen) {
        const ErrorCode code = chosen.error().code;
        if (waits && code == ErrorCode::kOverloaded) return enqueue(call);
        if (!now_ready->ready.empty() && code != ErrorCode::kUnavailable) {
            return tl::unexpected(code == ErrorCode::kOverloaded ? refuse_full() : chosen.error());
        }
        if (waiting.load(std::memory_order_relaxed) >= options.max_waiting) {
            return tl::unexpected(none_ready(call.get()));
        }
    }
    if (!begin()) {
        if (call->slot) arrived(*call);
        unbook(*call);
        return error(ErrorCode::kUnavailable, "the engine is stopping");
    }
    CallRoom& room = call->slot ? *call->slot->room : waiting_room(call->life.original().id);
    enter(call, room);
    send(call, room, true);
    return {};
}

void PoolCalls::enter(const std::shared_ptr<Call>& call, CallRoom& home) {
    call->home.store(&home, std::memory_order_seq_cst);
    const protocol::RequestId id = call->life.original().id;
    Shard& s = shard(id);
    const std::scoped_lock lock(s.mutex);
    s.calls.emplace(id.value, call);
}

Result<void> PoolCalls::enqueue(const std::shared_ptr<Call>& call) {
    if (!begin()) return error(ErrorCode::kUnavailable, "the engine is stopping");
    const protocol::RequestId id = call->life.original().id;
    CallRoom& room = waiting_room(id);
    enter(call, room);
    call->queued = true;
    call->queued_since = call->submitted;
    auto pushed =
        room.loop().on_this_thread() ? room.settle_and_push(call) : queue_->push(call, true);
    if (pushed) return {};
    forget(id);
    ended(1);
    return pushed;
}

void PoolCalls::send(const std::shared_ptr<Call>& call, CallRoom& room, bool directly) {
    call->home.store(&room, std::memory_order_seq_cst);
    if (directly && room.loop().on_this_thread()) return room.arrive(call);
    if (room.loop().post([keep = shared_from_this(), &room, call] { room.arrive(call); })) return;
    // The loops are gone, and with them every other place where the call could end.
    if (call->slot) arrived(*call);
    unbook(*call);
    protocol::StepBatch batch;
    batch.events.push_back(call->life.end(FinishReason::kCancelled));
    release_handoffs(*call);
    forget(call->life.original().id);
    call->sink->on_step(std::move(batch));
    ended(1);
}

void PoolCalls::cancel(protocol::RequestId id) {
    std::shared_ptr<Call> call;
    {
        Shard& s = shard(id);
        const std::scoped_lock lock(s.mutex);
        const auto found = s.calls.find(id.value);
        if (found == s.calls.end()) return;
        call = found->second;
    }
    call->cancelled.store(true, std::memory_order_seq_cst);
    CallRoom* const home = call->home.load(std::memory_order_seq_cst);
    home->loop().post([keep = shared_from_this(), home, call] { home->check_cancelled(call); });
}

void PoolCalls::stop(Deadline deadline) {
    {
        const std::scoped_lock lock(live_mutex_);
        stopping_.store(true, std::memory_order_release);
    }
    {
        std::unique_lock lock(live_mutex_);
        while (live_ > 0 && !deadline.reached(clock.now())) {
            const auto left = std::min<std::chrono::nanoseconds>(deadline.left(clock.now()),
                                                                 std::chrono::seconds(1));
            none_live_.wait_for(lock, left);
        }
    }
    ending_.store(true, std::memory_order_seq_cst);
    for (const auto& room : rooms_) {
        room->loop().post([keep = shared_from_this(), r = room.get()] { r->end_all(); });
    }
    std::unique_lock lock(live_mutex_);
    none_live_.wait(lock, [&] { return live_ == 0; });
}

void PoolCalls::forget(protocol::RequestId id) {
    Shard& s = shard(id);
    const std::scoped_lock lock(s.mutex);
    s.calls.erase(id.value);
}

bool PoolCalls::begin() {
    const std::scoped_lock lock(live_mutex_);
    if (stopping()) return false;
    ++live_;
    return true;
}

void PoolCalls::ended(std::size_t count) {
    const std::scoped_lock lock(live_mutex_);
    live_ -= count;
    if (live_ == 0) none_live_.notify_all();
}

Error PoolCalls::none_ready(const Call* call) const {
    Error e =
        error(ErrorCode::kUnavailable, "no worker of model {} is ready", options.card.name).value();
    if (call != nullptr) {
        if (!call->no_rank.empty()) e.message += " for this request: " + call->no_rank;
        const auto delivered = call->life.delivered_tokens();
        if (delivered > 0) e.message += fmt::format("; {} tokens were delivered", delivered);
    }
    e.retryable = true;
    e.retry_after_ms = kRetryAfterMs;
    return e;
}

Error PoolCalls::refuse_full() const {
    Error e = error(ErrorCode::kOverloaded, "all workers of model {} are full", options.card.name)
                  .value();
    e.retryable = true;
    e.retry_after_ms = kRetryAfterMs;
    return e;
}

CallRoom& PoolCalls::room_of(const runtime::Loop& loop) const {
    for (const auto& room : rooms_) {
        if (&room->loop() == &loop) return *room;
    }
    STATOR_CHECK(false, "a worker lives on a loop that the engine was not given");
    std::unreachable();
}

CallRoom& PoolCalls::waiting_room(protocol::RequestId id) const {
    for (const auto& room : rooms_) {
        if (room->loop().on_this_thread()) return *room;
    }
    return *rooms_[id.value % rooms_.size()];
}

}  // namespace stator::engine
