#include "stator/sim/fleet_sim.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <utility>

#include "stator/base/check.h"
#include "stator/sim/fleet_sim_impl.h"

namespace stator::sim {
namespace {

using engine::mock::Fault;

constexpr std::uint64_t kProgressEvery = 1U << 14;
double seconds(Nanos t) { return to_seconds(t); }

report::CollectorOptions collector_options(const Scenario& s, std::uint64_t seed) {
    report::CollectorOptions o;
    o.name = s.name;
    o.slo = s.slo;
    o.per_worker = true;
    o.seed = seed;
    o.closed_loop = s.workload.effective_arrivals() == workload::Arrivals::kClosed;
    std::string fleet;
    for (const Group& g : s.groups) {
        fleet += fmt::format("{}{} {} ({}, {})", fleet.empty() ? "" : ", ", g.workers, g.name,
                             to_string(g.role), g.engine);
    }
    o.facts = {{"simulated", "yes: virtual time"},
               {"fleet", fleet},
               {"router", std::string(router::to_string(s.router.policy))},
               {"seed", fmt::format("{}", seed)}};
    if (!s.trace_file.empty()) o.facts.push_back({"trace", s.trace_file});
    return o;
}

}  // namespace

FleetSim::FleetSim(const Scenario& scenario, workload::Workload& workload,
                   const RunOptions& options)
    : scenario_(scenario),
      workload_(workload),
      options_(options),
      collector_(collector_options(scenario, options.seed)),
      fleet_(scenario, options.seed),
      routing_(scenario, fleet_, options.seed),
      closed_(scenario.workload.effective_arrivals() == workload::Arrivals::kClosed),
      keeps_outputs_(scenario.workload.kind == workload::Kind::kChat ||
                     scenario.workload.kind == workload::Kind::kAgent || !scenario.faults.empty()),
      sessions_(keeps_outputs_),
      handoff_luck_(options.seed * 0x9E3779B97F4A7C15ULL + 11),
      queue_(scenario.queue) {
    if (scenario.planner) planning_.emplace(scenario, fleet_, options.seed);
    present_ = fleet_.size();
}

void FleetSim::prepare() {
    for (std::uint32_t w = 0; w < fleet_.size(); ++w) {
        if (const auto at = fleet_.worker(w).faults.crash()) {
            events_.add(*at, {Event::Kind::kCrash, w, 0});
        }
        for (const Nanos at : fleet_.worker(w).faults.hash_seed_repaired()) {
            events_.add(at, {Event::Kind::kStartAnew, w, 0});
        }
    }
    for (std::uint32_t i = 0; i < scenario_.resizes.size(); ++i) {
        events_.add(scenario_.resizes[i].at, {Event::Kind::kResize, i, 0});
    }
    const auto any = [&](std::initializer_list<Fault::Kind> kinds) {
        return std::ranges::any_of(scenario_.faults, [&](const Fault& fault) {
            return std::ranges::find(kinds, fault.kind) != kinds.end();
        });
    };
    if (any({Fault::Kind::kWrongTokens})) {
        collector_.warn("Wrong tokens change nothing here: nobody reads them.");
    }
    using enum Fault::Kind;
    if (!routing_.reads_caches() && any({kDropEvents, kLoseEvents, kChangedHashSeed})) {
        collector_.warn(
            fmt::format("Lost and wrong KV events change nothing here: the policy {} "
                        "reads none.",
                        router::to_string(scenario_.router.policy)));
    }
    if (scenario_.report_every.count() > 0) {
        // Spread over the period, so that they do not all come at once.
        for (std::uint32_t w = 0; w < fleet_.size(); ++w) {
            events_.add(scenario_.report_every * (w + 1) / fleet_.size(),
                        {Event::Kind::kReport, w, 0});
        }
    }
    if (planning_) events_.add(planning_->interval(), {Event::Kind::kPlan, 0, 0});
    note_workers();
    pull();
}

report::Report FleetSim::run() {
    prepare();
    bool stopped = false;
    const Nanos last(scenario_.end_after_s > 0
                         ? static_cast<std::int64_t>(scenario_.end_after_s * 1e9)
                         : std::numeric_limits<std::int64_t>::max());
    while (!events_.empty() && !stopped) {
        if (events_.next_time() > last) {
            now_ = last;
            break;
        }
        now_ = events_.next_time();
        handle(events_.take());
        run_replicas_in_time();
        if (++progress_.events % kProgressEvery == 0 && options_.go_on) {
            progress_.seconds = seconds(now_);
            stopped = !options_.go_on(progress_);
        }
    }
    over_ = true;
    for (std::uint32_t place = 0; place < live_.size(); ++place) {
        if (live_[place].started) end(place, Outcome::kUnfinished, "still running");
    }
    if (scenario_.replicas.replicas > 1) {
        const auto c = routing_.routers().counters();
        collector_.set_fact(
            "routers", fmt::format("{}{}; of {} messages {} were missed, {} repaired them, {} "
                                   "digests did not fit",
                                   scenario_.replicas.replicas,
                                   scenario_.replicas.share ? "" : ", each by itself", c.deltas,
                                   c.missed, c.repaired, c.mismatches));
    }
    add_facts();
    if (break_even_.decisions() > 0) {
        const BreakEven::Size size = break_even_.size();
        collector_.set_fact(
            "disaggregation",
            fmt::format("{} of {} prompts had a worker of their own; from {} tokens to compute on, "
                        "but for {:.1f} %",
                        break_even_.splits(), break_even_.decisions(), size.tokens,
                        size.wrong_percent));
    }
    if (const auto error = routing_.median_error_percent()) {
        collector_.set_fact("predicted TTFT",
                            fmt::format("median error {:.1f} %, median bias {:+.1f} %", *error,
                                        routing_.median_bias_percent().value_or(0)));
    }
    for (auto& [key, text] : routing_.audit_facts()) collector_.set_fact(key, std::move(text));
    return collector_.finish(seconds(now_), stopped);
}

void FleetSim::handle(const Event& event) {
    switch (event.kind) {
        case Event::Kind::kArrival: {
            RequestSpec spec = std::move(*ahead_);
            ahead_.reset();
            start(take_place(std::move(*sessions_.add(std::move(spec)))));
            return pull();
        }
        case Event::Kind::kStart:
            return start(event.what);
        case Event::Kind::kRoute:
            return route(event.what);
        case Event::Kind::kArrive:
            if (live_[event.what].id == event.detail) arrive(event.what);  // else: lost on the way
            return;
        case Event::Kind::kNotice:
            free_notices_.push_back(static_cast<std::uint32_t>(event.detail));
            routing_.hear(notices_[event.detail], now_);
            return drain_soon(now_);
        case Event::Kind::kDrain:
            return drain();
        case Event::Kind::kReport:
            if (progress_.started > progress_.ended || !exhausted_) {
                report(event.what);
                events_.add(now_ + scenario_.report_every, event);
            }
            return;
        case Event::Kind::kStepEnd:
            return end_step(event.what);
        case Event::Kind::kWake:
            if (fleet_.worker(event.what).wake_up == event.detail) step(event.what);
            return;
        case Event::Kind::kCrash:
            return crash(event.what);
        case Event::Kind::kStartAnew:
            if (fleet_.worker(event.what).gone) return;
            fleet_.worker(event.what).core->clear_cache();
            return routing_.cache_changed(event.what, now_);
        case Event::Kind::kResize:
            return resize(scenario_.resizes[event.what]);
        case Event::Kind::kUp:
            if (SimWorker& w = fleet_.worker(event.what);
                !w.gone && !w.draining && !w.ended && w.life == event.detail) {
                fleet_.worker(event.what).up = fleet_.worker(event.what).was_up = true;
                routing_.set_open(event.what, true);
            }
            return note_workers();
        case Event::Kind::kReplicas:
            if (replicas_at_ == now_) replicas_at_.reset();
            return routing_.routers().run(now_);
        case Event::Kind::kPlan:
            if (progress_.started > progress_.ended || !exhausted_) {
                plan();
                events_.add(now_ + planning_->interval(), event);
            }
            return;
    }
}

/// As long as there are requests, what routers tell each other is an event among the others.
void FleetSim::run_replicas_in_time() {
    const auto next = routing_.routers().next();
    if (!next || (replicas_at_ && *replicas_at_ <= *next)) return;
    if (progress_.started == progress_.ended && exhausted_) return;
    replicas_at_ = *next;
    events_.add(std::max(now_, *next), {Event::Kind::kReplicas, 0, 0});
}

/// Reads the workload as far as it must be known now: until a request that starts later, or that a
/// closed loop has no place for yet.
void FleetSim::pull() {
    while (!exhausted_) {
        if (!ahead_) {
            auto spec = workload_.next();
            if (!spec) {
                exhausted_ = true;
                return;
            }
            if (spec->after) {
                if (auto ready = sessions_.add(std::move(*spec))) {
                    const Nanos at = now_ + ready->start;
                    events_.add(at, {Event::Kind::kStart, take_place(std::move(*ready)), 0});
                }
                continue;
            }
            ahead_ = std::move(*spec);
        }
        if (!closed_) {
            events_.add(std::max(now_, ahead_->start), {Event::Kind::kArrival, 0, 0});
            return;
        }
        if (sessions_.open() >= scenario_.workload.concurrency) return;
        RequestSpec spec = std::move(*ahead_);
        ahead_.reset();
        auto ready = sessions_.add(std::move(spec));
        events_.add(now_, {Event::Kind::kStart, take_place(std::move(*ready)), 0});
    }
}

std::uint32_t FleetSim::take_place(RequestSpec spec) {
    if (free_places_.empty()) {
        STATOR_CHECK(live_.size() < (1U << kSlotBits), "requests under way have a number");
        free_places_.push_back(static_cast<std::uint32_t>(live_.size()));
        live_.emplace_back();
    }
    const std::uint32_t place = free_places_.back();
    free_places_.pop_back();
    live_[place].spec = std::move(spec);
    return place;
}

void FleetSim::start(std::uint32_t place) {
    Live& live = live_[place];
    live.started = true;
    live.life.emplace(life_of(live.spec));
    live.record.index = live.spec.index;
    live.record.intended = seconds(now_);
    live.record.sent = live.record.intended;
    ++progress_.started;
    if (planning_) planning_->offered(live.spec);
    route(place);
}

void FleetSim::end(std::uint32_t place, Outcome outcome, std::string reason) {
    Live& live = live_[place];
    if (!live.life->ended()) (void)live.life->end(protocol::FinishReason::kCancelled);
    take_releases(live);
    release_prefill(live);
    unbook(live);
    live.record.outcome = outcome;
    live.record.reason = std::move(reason);
    live.record.end = outcome == Outcome::kOk
                          ? live.last_token
                          : std::max(live.last_token, seconds(now_ + scenario_.response_delay));
    live.record.gaps = live.gaps;
    collector_.add(live.record);
    if (planning_) {
        const double n = static_cast<double>(live.gaps.size());
        planning_->ended(live.record, n > 0 ? (live.last_token - live.record.first_token) / n : -1);
    }
    ++progress_.ended;
    const RequestSpec spec = std::move(live.spec);
    std::vector<TokenId> output = std::move(live.output);
    std::vector<float> gaps = std::move(live.gaps);
    gaps.clear();
    live_[place] = Live{};
    live_[place].gaps = std::move(gaps);  // keeps its memory
    free_places_.push_back(place);
    if (over_) return;
    for (RequestSpec& next : sessions_.ended(spec, std::move(output))) {
        const Nanos at = now_ + scenario_.response_delay + next.start;
        events_.add(at, {Event::Kind::kStart, take_place(std::move(next)), 0});
    }
    if (closed_) pull();
}

report::Report run_scenario(const Scenario& scenario, workload::Workload& workload,
                            const RunOptions& options) {
    return FleetSim(scenario, workload, options).run();
}

}  // namespace stator::sim
