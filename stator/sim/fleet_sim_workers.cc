#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/sim/fleet_sim_impl.h"

namespace stator::sim {
namespace {

double seconds(Nanos t) { return to_seconds(t); }

}  // namespace

void FleetSim::step(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    if (w.in_step || w.gone) return;
    const Nanos begin = w.faults.after_hang(now_);
    if (begin > now_) {
        events_.add(begin, {Event::Kind::kWake, index, ++w.wake_up});
        return;
    }
    const auto plan = w.core->begin_step(now_);
    if (plan) {
        w.in_step = true;
        const auto length = w.speed == 1.0
                                ? plan->duration
                                : Nanos(static_cast<std::int64_t>(
                                      static_cast<double>(plan->duration.count()) / w.speed));
        const Nanos end = w.faults.step_end(now_, length);
        w.step = plan->shape;
        w.step_length = end - now_;
        events_.add(end, {Event::Kind::kStepEnd, index, 0});
    } else if (const auto ready = w.core->next_ready()) {
        events_.add(std::max(now_, *ready), {Event::Kind::kWake, index, ++w.wake_up});
    }
    routing_.cache_changed(index, now_);
}

void FleetSim::end_step(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    if (w.gone) return;
    w.in_step = false;
    w.busy_s += to_seconds(w.step_length);
    std::vector<CoreOutput> outputs = std::move(step_outputs_);
    outputs.clear();
    w.core->end_step(outputs);
    routing_.cache_changed(index, now_);
    routing_.step_ended(index, w.step_length, w.step);
    for (const CoreOutput& out : outputs) output(out);
    step_outputs_ = std::move(outputs);
    step(index);
    if (w.draining) stop_if_ended(index);
    if (scenario_.report_every.count() == 0) report(index);
}

void FleetSim::output(const CoreOutput& out) {
    const auto place = static_cast<std::uint32_t>(out.id.value & ((1U << kSlotBits) - 1));
    Live& live = live_[place];
    if (live.id != out.id.value) return;  // ended meanwhile
    if (live.recomputes && out.first) note_recomputed(live, out);
    const bool counts = live.leg == Leg::kWhole || live.leg == Leg::kPrefill;
    const bool first = !live.counted;
    if (counts && !live.counted && (out.first || out.finish)) {
        live.counted = true;
        live.record.input_tokens = out.prompt_tokens;
        live.record.cached_tokens = out.cached_tokens;
    }
    if (counts && (out.first || out.finish) && live.booking.value != 0) {
        Notice n;
        n.kind = Notice::Kind::kPromptDone;
        n.booking = live.booking;
        n.cached_tokens = out.cached_tokens;
        n.worker = live.worker;
        if (first && live.sample) {
            n.sample = live.sample;
            n.sample->cached_tokens = out.cached_tokens;
        }
        tell(n);
    }
    if (out.has_token && live.leg == Leg::kDecode && live.booking.value != 0 &&
        live.prefiller != kNobody) {
        Notice n;
        n.kind = Notice::Kind::kHandedOver;
        n.booking = live.booking;
        tell(n);
    }
    if (out.has_token) {
        const double at = seconds(now_ + scenario_.response_delay);
        if (live.record.output_tokens++ == 0) {
            live.record.first_token = at;
            if (planning_) {
                planning_->first_token(at - live.record.intended, live.record.input_tokens,
                                       live.record.cached_tokens);
            }
            if (live.predicted >= 0) routing_.note_prediction(live.predicted, at - live.booked);
        } else {
            live.gaps.push_back(static_cast<float>(at - live.last_token));
        }
        live.last_token = at;
        if (keeps_outputs_) live.output.push_back(out.token);
        if (live.prefiller != kNobody) release_prefill(live);
    }
    if (out.finish) leg_ended(place);
}

void FleetSim::crash(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    if (!w.gone && !w.ended) note_presence(-1);
    w.up = false;
    w.gone = true;
    routing_.set_open(index, false);
    note_workers();
    const Error why = error(ErrorCode::kUnavailable, "worker {} has crashed", index).value();
    for (std::uint32_t place = 0; place < live_.size(); ++place) {
        if (live_[place].id != 0 && live_[place].worker == index) lose(place, why);
    }
}

void FleetSim::resize(const Resize& resize) {
    std::vector<std::uint32_t> draining;
    for (std::uint32_t w = 0; w < fleet_.size(); ++w) {
        if (fleet_.worker(w).up) draining.push_back(w);
    }
    const std::vector<std::uint32_t> made = fleet_.resize(resize.group, resize.workers);
    note_presence(static_cast<int>(made.size()));
    for (const std::uint32_t w : draining) stop_if_ended(w);
    routing_.add_workers();
    for (std::uint32_t w = 0; w < fleet_.size(); ++w) routing_.set_open(w, fleet_.worker(w).up);
    for (const std::uint32_t w : made) {
        events_.add(now_ + scenario_.start_up, {Event::Kind::kUp, w, 0});
        if (const auto at = fleet_.worker(w).faults.crash(); at && *at > now_) {
            events_.add(*at, {Event::Kind::kCrash, w, 0});
        }
    }
    note_workers();
}

/// One that drains and has nothing more to do is gone, and its cache with it.
void FleetSim::stop_if_ended(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    if (!w.draining || w.ended || w.gone || w.in_step || !w.core->idle()) return;
    w.ended = true;
    note_presence(-1);
    if (!planning_) return;
    w.core->clear_cache();
    routing_.cache_changed(index, now_);
}

void FleetSim::note_presence(int change) {
    worker_seconds_ += static_cast<double>(present_) * to_seconds(now_ - presence_at_);
    presence_at_ = now_;
    present_ += change;
}

void FleetSim::plan() {
    for (std::uint32_t w = 0; w < fleet_.size(); ++w) stop_if_ended(w);
    const planner::Decision& decision = planning_->tick(now_, static_cast<double>(queue_.size()));
    planning_->note(collector_, now_);
    for (const planner::Action& action : decision.actions) act(action);
    if (!decision.actions.empty()) note_workers();
}

void FleetSim::act(const planner::Action& action) {
    if (action.kind == planner::Action::Kind::kStart) {
        for (std::uint32_t i = 0; i < action.count; ++i) {
            const std::uint32_t w = fleet_.start(planning_->group_of(action.role));
            routing_.add_workers();
            routing_.set_open(w, false);
            note_presence(1);
            events_.add(now_ + planning_->start_up(), {Event::Kind::kUp, w, fleet_.worker(w).life});
        }
        return;
    }
    const auto place = planning_->place_of(action.worker);
    if (action.kind != planner::Action::Kind::kDrain || !place) return;
    fleet_.drain(*place);
    routing_.set_open(*place, false);
    stop_if_ended(*place);
}

void FleetSim::note_workers() {
    if (scenario_.resizes.empty() && scenario_.faults.empty()) return;
    for (std::size_t g = 0; g < scenario_.groups.size(); ++g) {
        collector_.note("workers: " + scenario_.groups[g].name, "workers", seconds(now_),
                        fleet_.up(g));
    }
}

}  // namespace stator::sim
