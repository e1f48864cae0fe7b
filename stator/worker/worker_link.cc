#include "stator/worker/worker_link.h"

#include <utility>

#include "stator/base/log.h"
#include "stator/engine/mailbox_sink.h"
#include "stator/worker/request_check.h"

namespace stator::worker {
namespace {

using protocol::StepBatch;
using protocol::StepEvent;

tl::unexpected<Error> go_elsewhere(const char* why) {
    auto e = error(ErrorCode::kUnavailable, "{}", why);
    e.value().retryable = true;
    return e;
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

requests::LoadMessage load_of(std::uint32_t rank, const engine::Engine& engine) {
    requests::LoadMessage message;
    message.rank = rank;
    message.load = engine.load();
    message.steps = engine.forward_pass_metrics().steps;
    return message;
}

std::shared_ptr<WorkerLink> WorkerLink::make(std::shared_ptr<Station> station,
                                             std::shared_ptr<requests::ServerLink> link) {
    const std::shared_ptr<WorkerLink> made(new WorkerLink(std::move(station), std::move(link)));
    made->mailbox_ = std::make_shared<runtime::Mailbox<StepBatch>>(
        made->loop_, [weak = std::weak_ptr(made)](std::vector<StepBatch>&& batches) {
            if (const auto self = weak.lock()) self->receive(std::move(batches));
        });
    made->sink_ = std::make_shared<engine::MailboxSink>(made->mailbox_);
    made->station_->add(made->number_, made);
    made->station_->metrics.link_opened();
    return made;
}

WorkerLink::WorkerLink(std::shared_ptr<Station> station, std::shared_ptr<requests::ServerLink> link)
    : station_(std::move(station)),
      loop_(link->loop()),
      link_(std::move(link)),
      number_(station_->next_link_number()) {}

WorkerLink::~WorkerLink() { mailbox_->close(); }

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
        send_load_if_changed(load_of(rank, *state->engines[rank]), now);
    }
    link_->flush();
}

Result<void> WorkerLink::on_open(requests::StreamId stream, std::uint32_t rank,
                                 std::uint64_t /*booking*/, protocol::GenerateRequest&& request) {
    const auto state = station_->state();
    auto admitted = admit(stream, rank, std::move(request), *state);
    if (!admitted) {
        Error& why = admitted.error();
        station_->metrics.refused(why.code);
        // Another worker, or this one later, may well take it.
        why.retryable |= why.code == ErrorCode::kUnavailable || why.code == ErrorCode::kOverloaded;
        if (rank < state->engines.size()) {
            // Together with the refusal, so that the next choice is made knowing it.
            link_->session().send_load(load_of(rank, *state->engines[rank]));
        }
        link_->flush();
        return admitted;
    }
    station_->metrics.accepted();
    if (station_->on_work) station_->on_work();
    return {};
}

Result<void> WorkerLink::admit(requests::StreamId stream, std::uint32_t rank,
                               protocol::GenerateRequest&& request, const WorkerState& state) {
    if (state.engines.empty()) return go_elsewhere("this worker is still loading its model");
    if (rank >= state.engines.size()) {
        return param_error("rank", "rank {} is not here: this worker has {}", rank,
                           state.engines.size());
    }
    engine::Engine* engine = state.engines[rank];
    if (auto sound = check_request(request, engine->info()); !sound) return sound;
    if (!station_->open.enter()) return go_elsewhere("this worker is draining and takes no work");
    request.id = id_of(stream);
    auto taken = engine->submit(std::move(request), sink_);
    if (!taken) {
        station_->open.leave();
        return taken;
    }
    open_[stream.value] = {engine, rank};
    return {};
}

void WorkerLink::on_cancel(requests::StreamId stream) {
    const auto it = open_.find(stream.value);
    if (it != open_.end()) it->second.engine->cancel(id_of(stream));
}

void WorkerLink::receive(std::vector<StepBatch>&& batches) {
    if (!link_) return;
    const TimePoint now = station_->clock.now();
    std::uint64_t tokens = 0;
    for (const StepBatch& batch : batches) {
        for (const StepEvent& event : batch.events) {
            if (event.finish || event.prompt_tokens > 0) note(event);
        }
        link_->session().send_step(batch, now);
        tokens += batch.tokens.size();
    }
    send_loads_with_step(now);
    link_->flush();
    const std::uint64_t sends = link_->sends();
    station_->metrics.sent(tokens, sends - std::exchange(sends_seen_, sends));
}

/// A request's first or last event: the load of its rank has changed by it.
void WorkerLink::note(const StepEvent& event) {
    const auto it = open_.find(static_cast<std::uint32_t>(event.id.value));
    if (it == open_.end()) return;  // ended here before the engine did
    const std::uint32_t rank = it->second.rank;
    if (rank >= told_.size()) told_.resize(rank + 1);
    told_[rank].due = true;
    if (!event.finish) return;
    open_.erase(it);
    station_->metrics.ended(1);
    station_->open.leave();
}

void WorkerLink::send_loads_with_step(TimePoint now) {
    const bool all = now - loads_sent_ >= station_->load_every;
    bool any = all;
    for (const Told& told : told_) any |= told.due;
    if (!any) return;
    const auto state = station_->state();
    for (std::uint32_t rank = 0; rank < state->engines.size(); ++rank) {
        if (!all && (rank >= told_.size() || !told_[rank].due)) continue;
        send_load_if_changed(load_of(rank, *state->engines[rank]), now);
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
        open.engine->cancel(id_of(requests::StreamId(stream)));
    }
    station_->metrics.ended(open_.size());
    station_->open.leave(open_.size());
    open_.clear();
}

void WorkerLink::on_lost(const Error& why) {
    if (!link_) return;
    mailbox_->close();
    if (!open_.empty()) {
        log_warn("A lost link's requests are cancelled.",
                 {{"link", link_->peer()}, {"why", why.message}, {"requests", open_.size()}});
    }
    cancel_all();
    station_->metrics.link_lost(why.code);
    station_->remove(number_);
    // In a later turn: the link itself is calling.
    loop_.post([link = std::exchange(link_, nullptr)] {});
}

}  // namespace stator::worker
