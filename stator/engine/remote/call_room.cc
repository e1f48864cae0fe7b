#include "stator/engine/remote/call_room.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/runtime/asio.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;
using protocol::StepEvent;

/// Workers that were full may have room again without the fleet's view changing.
constexpr std::chrono::milliseconds kTryAgain{50};

}  // namespace

CallRoom::CallRoom(PoolCalls& calls, runtime::Loop& loop)
    : calls_(calls), loop_(loop), timer_(runtime::asio_context(loop)) {}

void CallRoom::arrive(const std::shared_ptr<Call>& call) {
    settle(call);
    if (call->cancelled.load(std::memory_order_seq_cst) || calls_.ending()) {
        if (call->slot) PoolCalls::arrived(*call);
        calls_.unbook(*call);
        return end(call, FinishReason::kCancelled);
    }
    if (call->slot) {
        open(call);
    } else {
        place(call);
    }
}

void CallRoom::settle_queued(const std::shared_ptr<Call>& call) {
    settle(call);
    if (call->cancelled.load(std::memory_order_seq_cst) || calls_.ending()) {
        end(call, FinishReason::kCancelled);
    }
}

Result<void> CallRoom::settle_and_push(const std::shared_ptr<Call>& call) {
    settle(call);
    if (auto pushed = calls_.queue().push(call, false); !pushed) {
        call->queued = false;
        leave(*call);
        return pushed;
    }
    if (call->cancelled.load(std::memory_order_seq_cst) || calls_.ending()) {
        end(call, FinishReason::kCancelled);
    }
    return {};
}

void CallRoom::out_of_queue(const std::shared_ptr<Call>& call, const std::optional<Error>& why) {
    // Else it has ended meanwhile, and given back what it was given.
    if (!call->tag || call->home.load(std::memory_order_seq_cst) != this) return;
    call->queued = false;
    if (call->slot) return go(call);
    // None of the ranks it could have is there any more.
    if (!why || why->code == ErrorCode::kUnavailable) return wait(call);
    end(call, FinishReason::kError, why);
}

void CallRoom::check_cancelled(const std::shared_ptr<Call>& call) {
    if (!call->tag || call->home.load(std::memory_order_seq_cst) != this) return;
    end(call, FinishReason::kCancelled);
}

void CallRoom::handoff_lost(const std::shared_ptr<Call>& call, const protocol::HandoffId& handoff,
                            const Error& why) {
    if (call->home.load(std::memory_order_seq_cst) != this) {
        return calls_.tell_handoff_lost(call, handoff, why);
    }
    if (!call->tag) {
        // It has ended, or is on its way here.
        if (!call->life.ended()) calls_.tell_handoff_lost(call, handoff, why);
        return;
    }
    if (!call->life.has_handoff() || call->life.handoff_id() != handoff) return;
    log_info("A prompt's KV will not come; who waits for it is asked no longer.",
             {{"why", why.message}});
    // The client's own fault is nobody else's to find again.
    if (why.code == ErrorCode::kInvalidArgument || why.code == ErrorCode::kTooLarge) {
        return end(call, FinishReason::kError, why);
    }
    stop_waiting(*call);
    let_go_of_worker(*call, true);
    note_failure(*call, why);
    if (give_up_handoff(call)) place(call);
    flush_later();
}

void CallRoom::wake() {
    for (const auto& call : present()) {
        if (!call->waiting_since) continue;
        stop_waiting(*call);
        place(call);
    }
}

void CallRoom::end_all() {
    for (const auto& call : present()) end(call, FinishReason::kCancelled);
    flush();
}

void CallRoom::on_step(std::uint64_t tag, const StepEvent& event,
                       std::span<const protocol::TokenOutput> tokens,
                       std::span<const protocol::TokenLogprob> top) {
    STATOR_ASSERT(tag < by_tag_.size() && by_tag_[tag]);
    Call& call = *by_tag_[tag];
    StepEvent out = event;
    out.id = call.life.original().id;
    if (out.finish == FinishReason::kCancelled &&
        !call.life.original().deadline.reached(calls_.clock.now())) {
        // Nobody here wanted that: the worker gave it up, its time to finish being over.
        out.finish = FinishReason::kError;
        out.error = error(ErrorCode::kAborted, "the worker ended the request").value();
    }
    if (!call.first_token && event.count > 0 && call.route) first_token(call, event);
    if (event.finish && std::exchange(call.cached_untold, false) && call.route) {
        calls_.router().cached_told(*call.route, event.prompt_tokens == 0
                                                     ? std::nullopt
                                                     : std::optional(event.cached_tokens));
    }
    if (event.finish == FinishReason::kHandoff && call.life.leg() == protocol::Leg::kEncode) {
        note_encoded(call);
    }
    const auto taken = call.life.take(out, tokens);
    if (taken == legs::RequestLife::Taken::kPassOn) {
        append(call, out, tokens, top);
        if (!out.finish) return;
        call.stream.reset();
        return finished(call);
    }
    const auto self = by_tag_[tag];
    if (event.handoff && !event.handoff->object.empty() && call.slot && call.stream) {
        call.left = {call.slot->worker, *call.stream, event.handoff->id};
        if (event.handoff->early) watch_handoff(self);
    }
    call.stream.reset();
    switch (taken) {
        case legs::RequestLife::Taken::kPassOn:
            return;
        case legs::RequestLife::Taken::kNextLeg:
            return leg_ended(self, event);
        case legs::RequestLife::Taken::kRefused:
            return refused(self, std::move(*out.error));
        case legs::RequestLife::Taken::kLost:
            if (out.error) return on_stream_lost(tag, *out.error);
            return on_stream_lost(
                tag, error(ErrorCode::kInternal, "its handoff does not fit the request").value());
    }
}

/// In case that it is the last one.
void CallRoom::note_failure(Call& call, const Error& why) {
    call.failed = why;
    call.failed->code = ErrorCode::kUnavailable;
    call.failed->retryable = true;
}

void CallRoom::watch_handoff(const std::shared_ptr<Call>& call) {
    call->left->worker->watch_handoff(call->left->stream,
                                      [calls = calls_.weak_from_this(), weak = std::weak_ptr(call),
                                       handoff = call->left->id](const Error& why) {
                                          const auto pool = calls.lock();
                                          const auto of = weak.lock();
                                          if (pool && of) pool->tell_handoff_lost(of, handoff, why);
                                      });
}

void CallRoom::first_token(Call& call, const StepEvent& event) {
    call.first_token = true;
    if (call.life.leg() != protocol::Leg::kDecode) {
        call.cached_untold = event.prompt_tokens == 0;
        calls_.router().first_token(
            *call.route, call.cached_untold ? std::nullopt : std::optional(event.cached_tokens),
            call.chosen_at);
    } else if (call.route->leg == protocol::Leg::kPrefill) {
        if (call.life.handoff_is_early()) {
            // Only now; what of it was cached nobody has said.
            calls_.router().prompt_computed(*call.route, std::nullopt);
        }
        calls_.router().handed_over(*call.route, call.chosen_at);
    }
    calls_.queue().nudge();
}

void CallRoom::note_encoded(const Call& call) {
    if (!call.route) return;
    calls_.router().encoded(*call.route, call.life.item_to_encode().digest, call.chosen_at);
}

void CallRoom::leg_ended(const std::shared_ptr<Call>& call, const StepEvent& event) {
    calls_.release_handoffs(*call);
    call->tried.clear();
    call->refusal.reset();
    const bool to_decoder = call->life.has_handoff() && call->decode_slot && call->route;
    if (event.finish != FinishReason::kHandoff) {
        calls_.migrations.add();  // its media could not be had
    } else if (call->life.has_handoff()) {
        if (call->route && !call->life.handoff_is_early()) {
            calls_.router().prompt_computed(*call->route, event.prompt_tokens == 0
                                                              ? std::nullopt
                                                              : std::optional(event.cached_tokens));
        }
        calls_.splits.add();
    } else {
        calls_.encoded_again.add();
    }
    if (to_decoder) {
        call->slot = std::exchange(call->decode_slot, nullptr);
        call->first_token = false;
    } else {
        let_go_of_worker(*call, false);
    }
    calls_.queue().nudge();
    place_later(call);
}

bool CallRoom::give_up_handoff(const std::shared_ptr<Call>& call) {
    calls_.recomputed.add();
    const auto over = call->life.give_up_handoff();
    calls_.release_handoffs(*call);
    call->tried.clear();
    call->refusal.reset();
    call->waited = {};
    if (over) end(call, *over);
    return !over;
}

void CallRoom::on_stream_lost(std::uint64_t tag, const Error& why) {
    STATOR_ASSERT(tag < by_tag_.size() && by_tag_[tag]);
    const auto call = by_tag_[tag];
    call->stream.reset();
    if (call->slot) call->tried.push_back(call->slot);
    let_go_of_worker(*call, false);
    note_failure(*call, why);
    if (const auto over = call->life.lost(why)) return end(call, *over);
    calls_.release_handoffs(*call);
    calls_.migrations.add();
    call->refusal.reset();
    place_later(call);
}

void CallRoom::settle(const std::shared_ptr<Call>& call) {
    std::uint64_t tag = by_tag_.size();
    if (free_tags_.empty()) {
        by_tag_.emplace_back();
    } else {
        tag = free_tags_.back();
        free_tags_.pop_back();
    }
    by_tag_[tag] = call;
    call->tag = tag;
    auto slot = std::ranges::find(sinks_, call->sink, &SinkSlot::sink);
    if (slot == sinks_.end()) slot = std::ranges::find(sinks_, nullptr, &SinkSlot::sink);
    if (slot == sinks_.end()) slot = sinks_.emplace(sinks_.end());
    slot->sink = call->sink;
    ++slot->users;
    call->sink_slot = static_cast<std::size_t>(slot - sinks_.begin());
    want(call->life.original().deadline);
}

void CallRoom::leave(Call& call) {
    // The room may be the last that holds it.
    const auto keep = std::exchange(by_tag_[*call.tag], nullptr);
    --sinks_[call.sink_slot].users;
    free_tags_.push_back(*call.tag);
    call.tag.reset();
}

void CallRoom::let_go_of_worker(Call& call, bool tell) {
    if (!call.slot) return;
    if (tell && call.stream) call.slot->worker->cancel(*call.stream);
    call.stream.reset();
    calls_.unbook(call);
}

void CallRoom::open(const std::shared_ptr<Call>& call) {
    RankSlot& slot = *call->slot;
    const auto leg = call->life.has_handoff() ? protocol::Leg::kDecode : call->route->leg;
    auto stream = slot.worker->open(call->life.next_request(leg), slot.rank, *this, *call->tag);
    // Its load has it by now: in between it is rather counted twice than not.
    PoolCalls::arrived(*call);
    if (!stream) return refused(call, std::move(stream.error()));
    call->stream = *stream;
}

void CallRoom::refused(const std::shared_ptr<Call>& call, Error why) {
    call->tried.push_back(call->slot);
    call->stream.reset();
    let_go_of_worker(*call, false);
    if (!legs::RequestLife::worth_another_try(why)) {
        return end(call, FinishReason::kError, std::move(why));
    }
    calls_.refused_elsewhere.add();
    // One that has no room outweighs one that is leaving.
    if (!call->refusal || why.code == ErrorCode::kOverloaded) call->refusal = std::move(why);
    place_later(call);
}

/// Not at once: this may be inside a call of the link that the next choice is on.
void CallRoom::place_later(const std::shared_ptr<Call>& call) {
    homeless_.push_back(call);
    if (homeless_.size() != 1) return;
    loop_.at_turn_end([this, keep = calls_.shared_from_this()] {
        for (const auto& c : std::exchange(homeless_, {})) {
            if (!c->tag || c->stream || c->waiting_since || c->queued) continue;
            if (c->slot) {
                go(c);
            } else {
                place(c);
            }
        }
    });
}

void CallRoom::place(const std::shared_ptr<Call>& call) {
    if (call->life.has_handoff() &&
        call->life.handoff_expires().reached(calls_.clock.now() + kLeaseToSpare) &&
        !give_up_handoff(call)) {
        return;
    }
    const bool may_wait = calls_.may_wait(*call);
    const auto chosen = calls_.choose(*call, may_wait);
    if (chosen && *chosen) return go(call);
    if (chosen) return enqueue(call);
    const ErrorCode code = chosen.error().code;
    // Nobody left out, and nobody who does it by itself; pairs have failed often enough.
    if (code == ErrorCode::kUnavailable && !call->no_rank.empty() && !call->life.has_handoff() &&
        call->failed && !call->life.may_split_again()) {
        return end(call, FinishReason::kError, std::move(call->failed));
    }
    if (call->life.has_handoff()) {
        // Where there is a rank for it, it may soon have room.
        if (code == ErrorCode::kOverloaded) {
            call->tried.clear();
            return wait(call);
        }
        if (!give_up_handoff(call)) return;
        return place(call);
    }
    if (may_wait && code == ErrorCode::kOverloaded) return enqueue(call);
    if (may_wait && code == ErrorCode::kDeadlineExceeded) {
        return end(call, FinishReason::kError, chosen.error());
    }
    const bool full = call->refusal && call->refusal->code == ErrorCode::kOverloaded;
    if (full && call->life.delivered_tokens() == 0) {
        return end(call, FinishReason::kError, std::move(call->refusal));
    }
    call->tried.clear();
    wait(call);
}

/// To the worker it was given.
void CallRoom::go(const std::shared_ptr<Call>& call) {
    if (call->slot->room == this) return open(call);
    CallRoom& next = *call->slot->room;
    leave(*call);
    calls_.send(call, next, false);
}

/// Those that have refused it are left out for a moment: they know better than their last report.
void CallRoom::enqueue(const std::shared_ptr<Call>& call) {
    const TimePoint now = calls_.clock.now();
    call->queued = true;
    call->queued_since = now;
    call->tried_until = now + kTryAgain;
    auto pushed = calls_.queue().push(call, false);
    if (pushed) return;
    call->queued = false;
    end(call, FinishReason::kError, std::move(pushed.error()));
}

void CallRoom::leave_queue(Call& call) {
    if (!std::exchange(call.queued, false)) return;
    const bool expired = call.life.original().deadline.reached(calls_.clock.now());
    if (calls_.queue().remove(call, expired)) return;
    // It was given a worker at this moment.
    if (call.slot) PoolCalls::arrived(call);
}

void CallRoom::wait(const std::shared_ptr<Call>& call) {
    const bool no_room = calls_.waiting.fetch_add(1) >= calls_.options.max_waiting;
    calls_.waiting_gauge.add(1);
    waiting_.fetch_add(1, std::memory_order_seq_cst);
    const TimePoint now = calls_.clock.now();
    call->waiting_since = now;
    if (no_room || (call->waited >= calls_.options.wait_for_worker && !call->life.has_handoff())) {
        return end(call, FinishReason::kError, calls_.none_ready(call.get()));
    }
    want(std::min(limit(*call), Deadline::after(now, kTryAgain)));
}

void CallRoom::stop_waiting(Call& call) {
    if (!call.waiting_since) return;
    call.waited += calls_.clock.now() - *call.waiting_since;
    call.waiting_since.reset();
    calls_.waiting.fetch_sub(1);
    calls_.waiting_gauge.add(-1);
    waiting_.fetch_sub(1, std::memory_order_seq_cst);
}

void CallRoom::end(const std::shared_ptr<Call>& call, FinishReason how, std::optional<Error> why) {
    leave_queue(*call);  // first: what is in there may be chosen for at this moment
    end(call, call->life.end(how, std::move(why)));
}

void CallRoom::end(const std::shared_ptr<Call>& call, const StepEvent& event) {
    stop_waiting(*call);
    leave_queue(*call);
    append(*call, event, {}, {});
    let_go_of_worker(*call, true);
    finished(*call);
    flush_later();
}

void CallRoom::append(Call& call, const StepEvent& event,
                      std::span<const protocol::TokenOutput> tokens,
                      std::span<const protocol::TokenLogprob> top) {
    SinkSlot& slot = sinks_[call.sink_slot];
    protocol::StepBatch& batch = slot.batch;
    if (batch.events.capacity() == 0) {
        batch.events.reserve(slot.events);
        batch.tokens.reserve(slot.tokens);
    }
    StepEvent& to = batch.events.emplace_back(event);
    to.first = static_cast<std::uint32_t>(batch.tokens.size());
    to.count = static_cast<std::uint32_t>(tokens.size());
    const auto top_first = static_cast<std::uint32_t>(batch.top.size());
    batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
    if (top.empty()) return;
    for (auto& t : std::span(batch.tokens).subspan(to.first)) t.top_first += top_first;
    batch.top.insert(batch.top.end(), top.begin(), top.end());
}

void CallRoom::finished(Call& call) {
    calls_.release_handoffs(call);
    let_go_of_worker(call, false);
    calls_.forget(call.life.original().id);
    leave(call);
    ++ended_;
}

void CallRoom::flush() {
    for (std::size_t i = 0; i < sinks_.size(); ++i) {
        SinkSlot& slot = sinks_[i];
        if (!slot.batch.events.empty()) {
            slot.events = slot.batch.events.size();
            slot.tokens = slot.batch.tokens.size();
            const auto sink = slot.sink;
            sink->on_step(std::exchange(slot.batch, {}));
        }
        if (sinks_[i].users == 0) sinks_[i].sink = nullptr;
    }
    if (ended_ > 0) calls_.ended(std::exchange(ended_, 0));
}

void CallRoom::flush_later() {
    if (std::exchange(flush_scheduled_, true)) return;
    loop_.at_turn_end([this, keep = calls_.shared_from_this()] {
        flush_scheduled_ = false;
        flush();
    });
}

Deadline CallRoom::limit(const Call& call) const {
    const Deadline deadline = call.life.original().deadline;
    if (!call.waiting_since) return deadline;
    return std::min(deadline, Deadline::after(*call.waiting_since,
                                              calls_.options.wait_for_worker - call.waited));
}

/// Set again only where it is to ring earlier: a ring for nothing looks at all calls and is rare.
void CallRoom::want(Deadline deadline) {
    if (deadline.is_never() || armed_ <= deadline) return;
    armed_ = deadline;
    timer_.expires_after(deadline.left(calls_.clock.now()));
    timer_.async_wait([this, weak = calls_.weak_from_this()](const auto& ec) {
        const auto keep = weak.lock();
        if (ec || !keep) return;
        armed_ = Deadline::never();
        on_timer();
    });
}

void CallRoom::on_timer() {
    const TimePoint now = calls_.clock.now();
    Deadline next;
    for (const auto& call : present()) {
        if (!call->tag) continue;
        if (call->life.original().deadline.reached(now)) {
            end(call, FinishReason::kCancelled);
        } else if (call->waiting_since && limit(*call).reached(now)) {
            if (!call->life.has_handoff()) {
                end(call, FinishReason::kError, calls_.none_ready(call.get()));
                continue;
            }
            stop_waiting(*call);
            if (give_up_handoff(call)) place(call);
            if (call->tag) next = std::min(next, limit(*call));
        } else {
            if (call->waiting_since) {
                stop_waiting(*call);
                place(call);
            }
            if (call->tag) next = std::min(next, limit(*call));
        }
    }
    want(next);
}

std::vector<std::shared_ptr<Call>> CallRoom::present() const {
    std::vector<std::shared_ptr<Call>> out;
    for (const auto& call : by_tag_) {
        if (call) out.push_back(call);
    }
    return out;
}

}  // namespace stator::engine
