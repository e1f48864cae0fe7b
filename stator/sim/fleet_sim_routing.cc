#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/sim/fleet_sim_impl.h"
#include "stator/tokens/hash.h"

namespace stator::sim {
namespace {

/// How long a later leg waits before it asks again, where every worker of its role is full.
constexpr Nanos kAskAgain = std::chrono::milliseconds(10);
/// How often those that wait at the router are scored again while nothing else happens.
constexpr Nanos kDrainEvery = std::chrono::milliseconds(20);
/// Of those that wait, so many are scored at a time.
constexpr std::size_t kMostScored = 64;

double seconds(Nanos t) { return to_seconds(t); }

Error worker_is_gone() { return error(ErrorCode::kUnavailable, "its worker is gone").value(); }

Error embeddings_are_gone() {
    Error e = error(ErrorCode::kUnavailable, "the embeddings did not arrive").value();
    e.param = "media";
    return e;
}

/// Another template: every prompt begins with other tokens, so that no block is the one that the
/// router knows.
void rename_blocks(CoreRequest& request) {
    for (auto& name : request.blocks) {
        name = tokens::sequence_hash(name, tokens::BlockHash(0x7e3d));
    }
}

}  // namespace

/// The size of the blocks that workers for this leg cut prompts into: the first group's.
std::uint32_t FleetSim::block_tokens(Leg leg) const {
    const std::uint8_t takers = router::Roles::takers(role_of(leg));
    for (const Group& g : scenario_.groups) {
        if ((g.roles.bits() & takers) != 0) return g.core.block_tokens;
    }
    return 1;
}

/// Decides who gets its next leg, and sends it there; or lets it wait at the router.
void FleetSim::route(std::uint32_t place) {
    Live& live = live_[place];
    if (live.life->has_handoff() && live.life->handoff_expires().reached(lease_begins()) &&
        !give_up_handoff(place)) {
        return;
    }
    live.leg = next_leg(live);
    const bool may_wait = scenario_.hold_s && live.leg != Leg::kDecode &&
                          live.leg != Leg::kEncode && live.life->migrations() == 0;
    live.request = leg_request(live, block_tokens(live.leg), place);
    live.booked = seconds(now_);
    const auto most = may_wait ? scenario_.hold_s : std::nullopt;
    auto decision =
        routing_.book(live.spec, live.request, live.life->may_split(), live.tried, most, now_);
    if (!decision) return nobody_takes(place, decision.error().code);
    if (decision->booking.value == 0) return enqueue(place, decision->chosen.prefill_s);
    sent(place, *decision);
}

/// It waits at the router until the rank that is best for it has little before it.
void FleetSim::enqueue(std::uint32_t place, double work_s) {
    Live& live = live_[place];
    router::Waiting w;
    w.id = place;
    w.tenant = std::hash<std::string>{}(live.spec.tenant);
    w.urgency = live.spec.priority > 0   ? router::RequestClass::kInteractive
                : live.spec.priority < 0 ? router::RequestClass::kBatch
                                         : router::RequestClass::kStandard;
    w.arrival = now_;
    w.work_s = work_s;
    auto taken = queue_.push(w, now_);
    if (!taken) return end(place, Outcome::kRefused, "the router's queue is full");
    live.queued = true;
    live.id = 0;
    if (*taken) {
        const auto displaced = static_cast<std::uint32_t>((*taken)->id);
        live_[displaced].queued = false;
        end(displaced, Outcome::kRefused, "the router's queue is full");
    }
    drain_soon(now_ + kDrainEvery);
}

void FleetSim::drain_soon(Nanos at) {
    if (drain_ordered_ || queue_.empty()) return;
    drain_ordered_ = true;
    events_.add(at, {Event::Kind::kDrain, 0, 0});
}

/// Scores those that wait again, in their order, and sends whom it can.
void FleetSim::drain() {
    drain_ordered_ = false;
    std::vector<router::Waiting> kept;
    while (kept.size() < kMostScored) {
        const auto next = queue_.pop(now_);
        if (!next) break;
        const auto place = static_cast<std::uint32_t>(next->id);
        Live& live = live_[place];
        live.leg = next_leg(live);
        live.request = leg_request(live, block_tokens(live.leg), place);
        auto decision = routing_.book(live.spec, live.request, live.life->may_split(), live.tried,
                                      scenario_.hold_s, now_);
        if (decision && decision->booking.value == 0) {
            kept.push_back(*next);
            live.id = 0;
            continue;
        }
        live.queued = false;
        if (!decision) {
            nobody_takes(place, decision.error().code);
        } else {
            sent(place, *decision);
        }
    }
    for (std::size_t i = kept.size(); i-- > 0;) queue_.put_back(kept[i]);
    drain_soon(now_ + kDrainEvery);
}

void FleetSim::sent(std::uint32_t place, const router::Decision& decision) {
    Live& live = live_[place];
    live.worker = decision.chosen.rank;
    live.decoder = decision.chosen.decode_rank;
    live.booking = decision.booking;
    if (live.leg == Leg::kEncode) live.images = live.request.images;
    if (live.leg == Leg::kWhole && scenario_.splits()) {
        const bool split = live.decoder != kNobody;
        if (split) live.leg = live.request.leg = Leg::kPrefill;
        const auto block = block_tokens(live.leg);
        const auto prompt = static_cast<std::uint32_t>(live.request.blocks.size() * block +
                                                       live.request.tail.size());
        break_even_.note(prompt - std::min(prompt, decision.chosen.cached_tokens), split);
    }
    live.sample = routing_.sample_of(decision);
    const bool whole = live.leg == Leg::kWhole || live.decoder != kNobody;
    if (whole && live.life->migrations() == 0 && live.tried.empty()) {
        live.predicted = decision.chosen.ttft_s() + seconds(now_) - live.booked;
    }
    if (scenario_.request_delay.count() == 0 || live.leg == Leg::kDecode) return arrive(place);
    events_.add(now_ + scenario_.request_delay, {Event::Kind::kArrive, place, live.id});
}

/// The leg reaches its worker, who fetches first what was handed over.
void FleetSim::arrive(std::uint32_t place) {
    Live& live = live_[place];
    SimWorker& worker = fleet_.worker(live.worker);
    if (worker.gone) return lose(place, worker_is_gone());
    const std::uint32_t block = fleet_.group_of(live.worker).core.block_tokens;
    if (block != block_tokens(live.leg)) live.request = leg_request(live, block, place);
    const auto asked = live.life->next_request(protocol_leg(live.leg));
    STATOR_ASSERT(asked->max_tokens == live.request.max_tokens || live.leg == Leg::kEncode);
    const bool needs_media = live.leg == Leg::kWhole || live.leg == Leg::kPrefill;
    if (needs_media && !asked->media.empty() && !claim_embeddings(live)) {
        return leg_failed(place, embeddings_are_gone());
    }
    if (asked->handoff && !claim_kv(live)) {
        ++again_.lost;
        live.recomputes = true;
        live.request.leg = Leg::kWhole;
    }
    if (worker.faults.wrong_template(now_)) rename_blocks(live.request);
    auto taken = worker.core->submit(std::move(live.request));
    if (!taken) return leg_failed(place, std::move(taken.error()));
    live.tried.clear();
    live.accepted = true;
    live.record.worker = live.worker;
    Replicas::note_seen(worker.seen, live.booking);
    step(live.worker);
}

void FleetSim::unbook(Live& live) {
    if (live.booking.value == 0) return;
    Notice n;
    n.kind = Notice::Kind::kEnded;
    n.booking = std::exchange(live.booking, {});
    tell(n);
}

/// The router hears of it, as late as a client would.
void FleetSim::tell(const Notice& notice) {
    if (scenario_.response_delay.count() == 0) {
        routing_.hear(notice, now_);
        return drain_soon(now_);
    }
    if (free_notices_.empty()) {
        free_notices_.push_back(static_cast<std::uint32_t>(notices_.size()));
        notices_.emplace_back();
    }
    const std::uint32_t at = free_notices_.back();
    free_notices_.pop_back();
    notices_[at] = notice;
    events_.add(now_ + scenario_.response_delay, {Event::Kind::kNotice, 0, at});
}

void FleetSim::report(std::uint32_t index) {
    const SimWorker& w = fleet_.worker(index);
    if (w.gone) return;
    Notice n;
    n.worker = index;
    n.seen = w.seen;
    n.load = w.core->load();
    tell(n);
}

CoreRequest FleetSim::leg_request(Live& live, std::uint32_t block, std::uint32_t place) {
    CoreRequest r;
    live.id = (++next_id_ << kSlotBits) | place;
    r.id = RequestId(live.id);
    PromptBuilder& builder = builders_.try_emplace(block, block).first->second;
    const auto rest = live.life->to_route();
    builder.build(
        live.spec, std::span(rest->prompt).last(rest->resumed_tokens),
        [&](std::uint64_t index) { return sessions_.output(live.spec.session, index); }, r);
    if (live.leg != Leg::kEncode && !rest->media.empty()) r.images.clear();
    r.max_tokens = rest->max_tokens;
    r.ignore_eos = true;
    r.adapter = live.spec.adapter.empty()
                    ? 0
                    : static_cast<std::uint32_t>(std::hash<std::string>{}(live.spec.adapter) | 1);
    r.priority = live.spec.priority;
    r.leg = live.leg;
    return r;
}

/// A request that no worker has had yet is refused; others wait, as PoolEngine lets them.
void FleetSim::nobody_takes(std::uint32_t place, ErrorCode why) {
    Live& live = live_[place];
    const bool full = fleet_.anybody_up(role_of(live.leg));
    const bool out_of_time = live.waited >= scenario_.wait_for_worker;
    if (live.life->has_handoff()) {
        if (why != ErrorCode::kOverloaded || out_of_time) {
            if (give_up_handoff(place)) route(place);
            return;
        }
    } else if (!live.accepted || (live.refused && live.life->delivered_tokens() == 0)) {
        return end(place, Outcome::kRefused, full ? "every worker is full" : "no worker is ready");
    } else if (out_of_time) {
        return end(place, Outcome::kServerError,
                   full ? "no worker had room in time" : "no worker is left");
    }
    live.id = 0;
    live.tried.clear();
    live.waited += kAskAgain;
    events_.add(now_ + kAskAgain, {Event::Kind::kRoute, place, 0});
}

}  // namespace stator::sim
