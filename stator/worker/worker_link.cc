#include "stator/worker/worker_link.h"

#include <utility>

#include "stator/base/log.h"
#include "stator/worker/request_check.h"

namespace stator::worker {
namespace {

/// A claim takes tens of milliseconds.
constexpr std::uint32_t kArrivingRetryMs = 100;

using protocol::StepBatch;
using protocol::StepEvent;

tl::unexpected<Error> go_elsewhere(const char* why) {
    auto e = error(ErrorCode::kUnavailable, "{}", why);
    e.value().retryable = true;
    return e;
}

std::string_view to_string(protocol::Handoff::Kind kind) {
    switch (kind) {
        case protocol::Handoff::Kind::kKv:
            return "kv";
        case protocol::Handoff::Kind::kEmbeddings:
            return "embeddings";
    }
    return "unknown";
}

std::string_view name_of(requests::Fetch::Kind kind) {
    switch (kind) {
        case requests::Fetch::Kind::kArtifact:
            return "artifact";
        case requests::Fetch::Kind::kSnapshot:
            return "snapshot";
        case requests::Fetch::Kind::kEventRange:
            return "range";
    }
    return "unknown";
}

}  // namespace

requests::LoadMessage load_of(std::uint32_t rank, const engine::Engine& engine,
                              const transfer::TransferPlane* transfer) {
    requests::LoadMessage message;
    message.rank = rank;
    message.load = engine.load();
    message.steps = engine.forward_pass_metrics().steps;
    if (transfer == nullptr) return message;
    const transfer::TransferPlane::Usage usage = transfer->usage();
    message.load.unclaimed_handoffs = static_cast<std::uint32_t>(usage.unclaimed);
    message.load.unclaimed_bytes = usage.unclaimed_bytes;
    message.load.unclaimed_limit = usage.budget_bytes;
    return message;
}

std::shared_ptr<WorkerLink> WorkerLink::make(std::shared_ptr<Station> station,
                                             std::shared_ptr<requests::ServerLink> link) {
    const std::shared_ptr<WorkerLink> made(new WorkerLink(std::move(station), std::move(link)));
    const std::weak_ptr weak(made);
    Station& shared = *made->station_;
    made->inbox_ = std::make_shared<StepInbox>(
        made->loop_,
        [shared_station = made->station_](std::shared_ptr<const protocol::Handoff> what) {
            shared_station->release(std::move(what));
        },
        [weak](std::vector<StepBatch>&& batches) {
            if (const auto self = weak.lock()) self->receive(std::move(batches));
        });
    made->arrivals_ = std::make_unique<Arrivals>(
        made->loop_, shared.transfer, shared.metrics, shared.clock, shared.claim_within,
        [weak](std::uint32_t stream, Result<protocol::GenerateRequest> request) {
            if (const auto self = weak.lock()) self->arrived(stream, std::move(request));
        });
    made->station_->add(made->number_, made);
    made->station_->metrics.link_opened();
    return made;
}

WorkerLink::WorkerLink(std::shared_ptr<Station> station, std::shared_ptr<requests::ServerLink> link)
    : station_(std::move(station)),
      loop_(link->loop()),
      link_(std::move(link)),
      number_(station_->next_link_number()) {}

WorkerLink::~WorkerLink() { inbox_->close(); }

void WorkerLink::on_loop(std::function<void(WorkerLink&)> f) {
    loop_.post([self = shared_from_this(), f = std::move(f)] {
        if (self->link_) f(*self);
    });
}

protocol::RequestId WorkerLink::id_of(requests::StreamId stream) const {
    return protocol::RequestId((std::uint64_t{number_} << 32) | stream.value);
}

void WorkerLink::tell_info() {
    on_loop([](WorkerLink& self) {
        if (!self.ready_) return;  // on_ready() will say what is so then
        self.link_->session().send_info(self.station_->state()->info);
        self.link_->flush();
    });
}

void WorkerLink::tell_load(RankLoads loads) {
    on_loop([loads = std::move(loads)](WorkerLink& self) {
        if (!self.ready_) return;
        const TimePoint now = self.station_->clock.now();
        for (const auto& load : *loads) self.send_load_if_changed(load, now);
        self.link_->flush();
    });
}

void WorkerLink::say_go_away(requests::GoAway go_away) {
    on_loop([go_away = std::move(go_away)](WorkerLink& self) {
        if (!self.ready_) return;
        self.link_->session().send_go_away(go_away);
        self.link_->flush();
    });
}

void WorkerLink::end_all(Error why) {
    on_loop([why = std::move(why)](WorkerLink& self) {
        for (const auto& [stream, open] : self.open_) {
            self.link_->session().send_error(requests::StreamId(stream), why);
        }
        self.cancel_all();
        self.link_->flush();
    });
}

void WorkerLink::count_unsent(std::function<void(std::size_t)> told) {
    const bool posted = loop_.post([self = shared_from_this(), told] {
        told(self->link_ ? self->link_->session().open_streams() : 0);
    });
    if (!posted) told(0);
}

void WorkerLink::on_ready(const requests::Hello& client) {
    ready_ = true;
    const auto state = station_->state();
    log_info("A client is linked.", {{"client", client.name}, {"link", link_->peer()}});
    requests::WorkerSession& session = link_->session();
    session.send_info(state->info);
    const TimePoint now = station_->clock.now();
    for (std::uint32_t rank = 0; rank < state->engines.size(); ++rank) {
        send_load_if_changed(load_of(rank, *state->engines[rank], station_->transfer.get()), now);
    }
    link_->flush();
}

Result<void> WorkerLink::on_open(requests::StreamId stream, std::uint32_t rank,
                                 std::uint64_t /*booking*/, protocol::GenerateRequest&& request) {
    const auto state = station_->state();
    auto admitted = admit(stream, rank, std::move(request), *state);
    if (!admitted) {
        tell_refusal(rank, admitted.error(), *state);
        return admitted;
    }
    station_->metrics.accepted();
    if (station_->on_work) station_->on_work();
    return {};
}

void WorkerLink::tell_refusal(std::uint32_t rank, Error& why, const WorkerState& state) {
    station_->metrics.refused(why.code);
    // Another worker, or this one later, may well take it.
    why.retryable |= why.code == ErrorCode::kUnavailable || why.code == ErrorCode::kOverloaded;
    if (rank < state.engines.size()) {
        // Together with the refusal, so that the next choice is made knowing it.
        link_->session().send_load(load_of(rank, *state.engines[rank], station_->transfer.get()));
    }
    link_->flush();
}

Result<void> WorkerLink::admit(requests::StreamId stream, std::uint32_t rank,
                               protocol::GenerateRequest&& request, const WorkerState& state) {
    if (state.engines.empty()) return go_elsewhere("this worker is still loading its model");
    if (rank >= state.engines.size()) {
        return param_error("rank", "rank {} is not here: this worker has {}", rank,
                           state.engines.size());
    }
    if (auto sound = check_request(request, state.engines[rank]->info()); !sound) return sound;
    const engine::EngineInfo& engine = state.engines[rank]->info();
    const bool hands_off = station_->transfer != nullptr ||
                           (request.leg == protocol::Leg::kPrefill && !engine.kv_method.empty()) ||
                           (request.leg == protocol::Leg::kEncode && engine.media_objects);
    if (auto fits = check_leg(request.leg, state.info.roles, hands_off); !fits) return fits;
    if (!station_->open.enter()) return go_elsewhere("this worker is draining and takes no work");
    request.id = id_of(stream);
    auto taken = take(stream, rank, std::move(request), state);
    if (!taken) station_->open.leave();
    return taken;
}

/// Claims what the request needs, or gives it to the engine at once.
Result<void> WorkerLink::take(requests::StreamId stream, std::uint32_t rank,
                              protocol::GenerateRequest&& request, const WorkerState& state) {
    engine::Engine* engine = state.engines[rank];
    if (Arrivals::needed(request)) {
        if (!station_->arriving.enter(rank, engine->load())) {
            auto full = error(ErrorCode::kOverloaded,
                              "the engine would not take this request once its handoffs were here");
            full.value().retry_after_ms = kArrivingRetryMs;
            return full;
        }
        ArrivalPlan plan;
        plan.kv_layout = engine->info().kv_layout;
        plan.kv_method = engine->info().kv_method;
        plan.media_objects = engine->info().media_objects;
        if (request.handoff) plan.cached_tokens = engine->cached_prefix_tokens(request);
        const auto arriving = arrivals_->begin(stream.value, request, plan);
        if (arriving && *arriving) {
            open_[stream.value] = {.engine = engine, .rank = rank, .arriving = true};
            return {};
        }
        station_->arriving.leave(rank);
        if (!arriving) return tl::unexpected(arriving.error());
    }
    if (auto taken = engine->submit(std::move(request), inbox_); !taken) return taken;
    open_[stream.value] = {.engine = engine, .rank = rank};
    return {};
}

/// The request's handoffs are here, or will not come.
void WorkerLink::arrived(std::uint32_t stream, Result<protocol::GenerateRequest> request) {
    const auto it = open_.find(stream);
    if (!link_ || it == open_.end()) return;
    const std::uint32_t rank = it->second.rank;
    Result<void> taken;
    if (!request) {
        taken = tl::unexpected(std::move(request.error()));
    } else {
        taken = it->second.engine->submit(std::move(*request), inbox_);
    }
    if (taken) {
        it->second.arriving = false;
        station_->arriving.leave(rank);
        return;
    }
    forget(stream);
    tell_refusal(rank, taken.error(), *station_->state());
    link_->session().send_error(requests::StreamId(stream), taken.error());
    link_->flush();
}

void WorkerLink::forget(std::uint32_t stream) {
    const auto it = open_.find(stream);
    if (it == open_.end()) return;
    if (it->second.arriving) station_->arriving.leave(it->second.rank);
    open_.erase(it);
    station_->metrics.ended(1);
    station_->open.leave();
}

void WorkerLink::on_cancel(requests::StreamId stream) {
    const auto it = open_.find(stream.value);
    if (it == open_.end()) return release_handed_off(stream);
    if (it->second.arriving) {
        arrivals_->cancel(stream.value);
        return forget(stream.value);
    }
    it->second.cancelled = true;
    it->second.engine->cancel(id_of(stream));
}

void WorkerLink::on_late_cancel(requests::StreamId stream) { release_handed_off(stream); }

void WorkerLink::release_handed_off(requests::StreamId stream) {
    if (auto what = handed_off_.take(stream.value)) {
        station_->metrics.handoff(to_string(what->kind), "released");
        station_->release(std::move(what));
    }
}

void WorkerLink::receive(std::vector<StepBatch>&& batches) {
    if (!link_) return;
    const TimePoint now = station_->clock.now();
    std::uint64_t tokens = 0;
    for (const StepBatch& batch : batches) {
        for (const StepEvent& event : batch.events) {
            if (event.finish || event.prompt_tokens > 0) note(event, now);
        }
        link_->session().send_step(batch, now);
        for (const protocol::LostHandoff& lost : batch.lost_handoffs) tell_lost(lost);
        tokens += batch.tokens.size();
    }
    send_loads_with_step(now);
    link_->flush();
    const std::uint64_t sends = link_->sends();
    station_->metrics.sent(tokens, sends - std::exchange(sends_seen_, sends));
}

/// A request's first or last event: the load of its rank has changed by it.
void WorkerLink::note(const StepEvent& event, TimePoint now) {
    const auto stream = static_cast<std::uint32_t>(event.id.value);
    const auto it = open_.find(stream);
    const bool unwanted = it == open_.end() || it->second.cancelled ||
                          event.finish != protocol::FinishReason::kHandoff;
    if (event.handoff) {
        handed_off_.add(stream, event.handoff, now);
        if (unwanted) release_handed_off(requests::StreamId(stream));
    }
    if (it == open_.end()) return;  // ended here before the engine did
    const std::uint32_t rank = it->second.rank;
    if (rank >= told_.size()) told_.resize(rank + 1);
    told_[rank].due = true;
    if (event.finish) forget(stream);
}

/// Unless its client has released it.
void WorkerLink::tell_lost(const protocol::LostHandoff& lost) {
    const auto stream = static_cast<std::uint32_t>(lost.id.value);
    const auto what = handed_off_.take(stream);
    if (!what) return;
    station_->metrics.handoff(to_string(what->kind), "lost");
    link_->session().send_handoff_lost(requests::StreamId(stream), lost.why);
}

void WorkerLink::send_loads_with_step(TimePoint now) {
    const bool all = now - loads_sent_ >= station_->load_every;
    bool any = all;
    for (const Told& told : told_) any |= told.due;
    if (!any) return;
    const auto state = station_->state();
    for (std::uint32_t rank = 0; rank < state->engines.size(); ++rank) {
        if (!all && (rank >= told_.size() || !told_[rank].due)) continue;
        send_load_if_changed(load_of(rank, *state->engines[rank], station_->transfer.get()), now);
    }
}

void WorkerLink::send_load_if_changed(const requests::LoadMessage& load, TimePoint now) {
    if (load.rank >= told_.size()) told_.resize(load.rank + 1);
    Told& told = told_[load.rank];
    told.due = false;
    loads_sent_ = now;
    if (told.load == load) return;
    told.load = load;
    link_->session().send_load(load);
}

void WorkerLink::on_fetch(std::uint64_t fetch, const requests::Fetch& what) {
    if (what.kind == requests::Fetch::Kind::kArtifact) return answer_artifact(fetch, what);
    answer_events(fetch, what);
}

void WorkerLink::answer_artifact(std::uint64_t fetch, const requests::Fetch& what) {
    const auto state = station_->state();
    const auto it = state->artifacts->by_sha256.find(what.sha256);
    if (it != state->artifacts->by_sha256.end()) return answer(fetch, "artifact", it->second);
    answer(fetch, "artifact",
           error(ErrorCode::kNotFound, "this worker has no artifact {}", what.sha256));
}

void WorkerLink::answer_events(std::uint64_t fetch, const requests::Fetch& what) {
    const bool queued = station_->fetches->try_submit(
        [weak = weak_from_this(), events = station_->events, &loop = loop_, fetch, what] {
            auto body =
                std::make_shared<Result<std::shared_ptr<const std::string>>>(events->fetch(what));
            loop.post([weak, fetch, what, body] {
                const auto self = weak.lock();
                if (self && self->link_) self->answer(fetch, name_of(what.kind), std::move(*body));
            });
        });
    if (queued) return;
    auto full = error(ErrorCode::kOverloaded, "too many snapshots and ranges are asked for");
    full.value().retryable = true;
    full.value().retry_after_ms = 1'000;
    answer(fetch, name_of(what.kind), std::move(full));
}

void WorkerLink::answer(std::uint64_t fetch, std::string_view kind,
                        Result<std::shared_ptr<const std::string>> body) {
    station_->metrics.fetched(kind, body.has_value(), body ? (*body)->size() : 0);
    link_->session().fetched(fetch, std::move(body));
    link_->flush();
}

void WorkerLink::on_lane_unwanted(requests::LaneId /*lane*/, const Error& /*why*/) {}

void WorkerLink::cancel_all() {
    for (const auto& [stream, open] : open_) {
        if (open.arriving) {
            arrivals_->cancel(stream);
            station_->arriving.leave(open.rank);
        } else {
            open.engine->cancel(id_of(requests::StreamId(stream)));
        }
    }
    station_->metrics.ended(open_.size());
    station_->open.leave(open_.size());
    open_.clear();
}

void WorkerLink::on_lost(const Error& why) {
    if (!link_) return;
    inbox_->close();
    if (!open_.empty()) {
        log_warn("A lost link's requests are cancelled.",
                 {{"link", link_->peer()}, {"why", why.message}, {"requests", open_.size()}});
    }
    cancel_all();
    arrivals_->close();
    // Whether the client has heard of them nobody knows; those that it has passed on are claimed.
    for (auto& what : handed_off_.take_all(station_->clock.now())) {
        station_->metrics.handoff(to_string(what->kind), "released");
        station_->release(std::move(what));
    }
    station_->metrics.link_lost(why.code);
    station_->remove(number_);
    // In a later turn: the link itself is calling.
    loop_.post([link = std::exchange(link_, nullptr)] {});
}

}  // namespace stator::worker
