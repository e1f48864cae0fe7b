#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "stator/base/check.h"
#include "stator/sim/fleet_sim_impl.h"

namespace stator::sim {

using protocol::FinishReason;
using protocol::Handoff;
using protocol::StepEvent;
using Step = legs::RequestLife::Step;
using Taken = legs::RequestLife::Taken;

namespace {

/// As in engine/remote: handoffs that end sooner are not sent to a worker any more.
constexpr Nanos kLeaseToSpare = std::chrono::seconds(1);
/// Tokens that a life is told of at a time.
constexpr std::size_t kMostTold = 256;

TimePoint time_point(Nanos now) { return TimePoint{} + now; }

/// A life looks at sizes, not at tokens: one stands for all of a prompt, and no row for the rows of
/// its images, which are one item.
constexpr tokens::TokenId kPrompt = 0;

std::shared_ptr<const Handoff> handoff_of(Handoff::Kind kind, TimePoint expires) {
    auto handoff = std::make_shared<Handoff>();
    handoff->kind = kind;
    handoff->expires = Deadline::at(expires);
    return handoff;
}

}  // namespace

protocol::Leg protocol_leg(Leg leg) {
    switch (leg) {
        case Leg::kWhole:
            return protocol::Leg::kWhole;
        case Leg::kPrefill:
            return protocol::Leg::kPrefill;
        case Leg::kDecode:
            return protocol::Leg::kDecode;
        case Leg::kEncode:
            return protocol::Leg::kEncode;
    }
    return protocol::Leg::kWhole;
}

legs::RequestLife FleetSim::life_of(const RequestSpec& spec) const {
    static const auto pixels = std::make_shared<const protocol::MediaContent>();
    protocol::GenerateRequest request;
    request.id = RequestId(spec.index);
    request.prompt = {kPrompt};
    request.max_tokens = std::max(1U, spec.output_tokens);
    request.ignore_eos = true;
    if (!spec.images.empty() && fleet_.has(Role::kEncode)) {
        request.media.emplace_back().content = pixels;
    }
    return {std::move(request), scenario_.max_moves};
}

TimePoint FleetSim::lease_begins() const { return time_point(now_ + kLeaseToSpare); }

/// Which leg its life wants next. Where a router does not decide for each request, every prompt
/// that may be split is, as long as there is a worker for it.
Leg FleetSim::next_leg(Live& live) {
    const Step step = live.life->next_step(lease_begins());
    take_releases(live);
    switch (step) {
        case Step::kEncode:
            return Leg::kEncode;
        case Step::kDecode:
            return Leg::kDecode;
        case Step::kPrompt:
            break;
    }
    const bool apart = fleet_.has(Role::kPrefill) && !scenario_.splits() &&
                       scenario_.router.disaggregation != router::Disaggregation::kNever;
    return apart && live.life->may_split() && fleet_.anybody_up(Role::kPrefill) ? Leg::kPrefill
                                                                                : Leg::kWhole;
}

/// Whether it gets the KV. If not, it computes the prompt itself; nobody else is told.
bool FleetSim::claim_kv(const Live& live) {
    return !fleet_.worker(live.prefiller).gone && !handoff_is_lost(live.worker);
}

bool FleetSim::claim_embeddings(const Live& live) {
    return !fleet_.worker(live.encoder).gone && !handoff_is_lost(live.worker);
}

bool FleetSim::handoff_is_lost(std::uint32_t taker) {
    const double p = fleet_.worker(taker).faults.handoff_loss(now_);
    return p > 0 && std::uniform_real_distribution<>(0, 1)(handoff_luck_) < p;
}

/// Gives its life the tokens since the last time: where something else happens, not one by one.
void FleetSim::tell_tokens(Live& live) {
    told_tokens_.resize(kMostTold);
    while (live.told < live.record.output_tokens) {
        const auto n = std::min<std::size_t>(kMostTold, live.record.output_tokens - live.told);
        for (std::size_t i = 0; i < n && keeps_outputs_; ++i) {
            told_tokens_[i].token = live.output[live.told + i];
        }
        StepEvent event;
        event.count = static_cast<std::uint32_t>(n);
        event.prompt_tokens = live.record.input_tokens;
        event.cached_tokens = live.record.cached_tokens;
        const Taken taken = live.life->take(event, std::span(told_tokens_).first(n));
        STATOR_CHECK(taken == Taken::kPassOn, "tokens are for the client");
        live.told += static_cast<std::uint32_t>(n);
    }
}

/// Its worker did not take it, or could not begin.
void FleetSim::leg_failed(std::uint32_t place, Error why) {
    Live& live = live_[place];
    StepEvent event;
    event.finish = FinishReason::kError;
    event.error = std::move(why);
    const std::uint32_t worker = live.worker;
    switch (live.life->take(event, {})) {
        case Taken::kPassOn:
            if (event.error->code != ErrorCode::kInvalidArgument) {
                return end(place, Outcome::kServerError, event.error->message);
            }
            return end(place, Outcome::kHttpError, "http 400: does not fit the cache or context");
        case Taken::kRefused:
            unbook(live);
            live.refused = event.error->code == ErrorCode::kOverloaded;
            live.tried.push_back(worker);
            return route(place);
        case Taken::kNextLeg:  // its embeddings are gone
            unbook(live);
            take_releases(live);
            ++again_.moves;
            live.tried.clear();
            live.refused = false;
            return route(place);
        case Taken::kLost:
            return lose(place, *event.error);
    }
}

void FleetSim::leg_ended(std::uint32_t place) {
    Live& live = live_[place];
    tell_tokens(live);
    StepEvent event;
    event.prompt_tokens = live.record.input_tokens;
    event.cached_tokens = live.record.cached_tokens;
    event.finish = FinishReason::kLength;
    const bool prefill = live.leg == Leg::kPrefill;
    if (prefill || live.leg == Leg::kEncode) {
        event.finish = FinishReason::kHandoff;
        event.handoff = handoff_of(prefill ? Handoff::Kind::kKv : Handoff::Kind::kEmbeddings,
                                   time_point(now_ + scenario_.handoff_lease));
    }
    const Taken taken = live.life->take(event, {});
    live.refused = false;
    if (taken == Taken::kPassOn) return end(place, Outcome::kOk, "");
    STATOR_CHECK(taken == Taken::kNextLeg, "a leg here leaves what it was asked for");
    if (prefill) {
        live.prefiller = live.worker;
        live.prefill_id = live.id;
        live.leg = Leg::kDecode;
        return go_on_with_decode(place);
    }
    if (live.encoder != kNobody) ++again_.images;
    live.encoder = live.worker;
    routing_.encoded(live.worker, live.images);
    live.leg = Leg::kWhole;
    live.id = 0;
    unbook(live);
    events_.add(now_ + fleet_.group_of(live.worker).core.handoff_latency,
                {Event::Kind::kRoute, place, 0});
}

/// Its prompt is computed: on to the decode worker, who was chosen before or is chosen now.
void FleetSim::go_on_with_decode(std::uint32_t place) {
    Live& live = live_[place];
    const std::uint32_t decoder = std::exchange(live.decoder, kNobody);
    if (decoder == kNobody || fleet_.worker(decoder).gone) {
        unbook(live);
        return route(place);
    }
    live.request = leg_request(live, fleet_.group_of(decoder).core.block_tokens, place);
    live.worker = decoder;
    arrive(place);
}

/// Its worker is gone: what it has so far is kept, the rest comes from another one.
void FleetSim::lose(std::uint32_t place, const Error& why) {
    Live& live = live_[place];
    tell_tokens(live);
    live.tried.push_back(live.worker);
    live.worker = kNobody;
    live.decoder = kNobody;
    live.id = 0;
    unbook(live);
    live.predicted = -1;
    live.refused = false;
    live.recomputes = live.recomputes || live.counted;
    if (!go_on(place, live.life->lost(why))) return;
    ++again_.moves;
    route(place);
}

/// Whether it goes on, with its prompt to be computed again.
bool FleetSim::give_up_handoff(std::uint32_t place) {
    Live& live = live_[place];
    ++again_.given_up;
    live.recomputes = true;
    live.tried.clear();
    live.refused = false;
    live.waited = Nanos(0);
    return go_on(place, live.life->give_up_handoff());
}

/// Ends it where its life is over.
bool FleetSim::go_on(std::uint32_t place, const std::optional<StepEvent>& over) {
    Live& live = live_[place];
    take_releases(live);
    if (!over) return true;
    if (over->finish == FinishReason::kError) {
        end(place, Outcome::kServerError, "its workers were lost");
    } else {
        end(place, Outcome::kOk, "");
    }
    return false;
}

/// KV that nobody will take makes room. Embeddings take none here.
void FleetSim::take_releases(Live& live) {
    for (const auto& handoff : live.life->take_releases()) {
        if (handoff->kind == Handoff::Kind::kKv) release_prefill(live);
    }
}

void FleetSim::release_prefill(Live& live) {
    if (live.prefiller == kNobody) return;
    const std::uint32_t worker = std::exchange(live.prefiller, kNobody);
    if (fleet_.worker(worker).gone) return;
    fleet_.worker(worker).core->release(RequestId(live.prefill_id));
    step(worker);
}

void FleetSim::note_recomputed(Live& live, const CoreOutput& out) {
    if (live.leg == Leg::kEncode) return;
    live.recomputes = false;
    ++again_.prompts;
    again_.tokens += out.prompt_tokens - std::min(out.prompt_tokens, out.cached_tokens);
}

void FleetSim::add_facts() {
    if (again_.moves > 0) {
        collector_.set_fact("moved to another worker", fmt::format("{} requests", again_.moves));
    }
    if (again_.lost + again_.given_up > 0) {
        collector_.set_fact("handoffs", fmt::format("{} did not arrive, {} were given up",
                                                    again_.lost, again_.given_up));
    }
    if (again_.prompts > 0) {
        collector_.set_fact("computed again",
                            fmt::format("{} prompts, {} tokens", again_.prompts, again_.tokens));
    }
    if (again_.images > 0) {
        collector_.set_fact("encoded again", fmt::format("{} requests' images", again_.images));
    }
    if (planning_ || !scenario_.resizes.empty()) {
        note_presence(0);
        collector_.set_fact("worker-hours", fmt::format("{:.3f}", worker_seconds_ / 3600));
    }
    if (planning_) {
        const planner::Planner& p = planning_->planner();
        const auto& t = p.totals();
        collector_.set_fact(
            "planner", fmt::format("{}: {} workers started, {} drained, {} changes of direction, "
                                   "{} orders without effect, in {} decisions",
                                   to_string(p.options().policy), t.started, t.drained,
                                   t.direction_changes, t.without_effect, t.ticks));
    }
}

}  // namespace stator::sim
