#include "stator/sim/planning.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "stator/base/check.h"
#include "stator/sim/prior.h"

namespace stator::sim {
namespace {

using planner::Action;
using planner::Decision;
using planner::Role;
using planner::WorkerState;

planner::Profile profile_of(const Scenario& scenario) {
    planner::Profile p;
    p.source = "the scenario";
    for (const Group& g : scenario.groups) {
        planner::RoleProfile r;
        const auto prefill = prefill_prior(g.core);
        const auto step = step_prior(g.core);
        const double speed = g.speed;
        r.cost.base_s = step.base_s / speed;
        // prefill_prior() shares the base out among a chunk's tokens.
        r.cost.prefill_token_s =
            std::max(0.0, prefill.per_token_s - step.base_s / g.core.step_tokens) / speed;
        constexpr double kContext = 2000;
        r.cost.decode_token_s = (step.per_sequence_s + kContext * step.per_kv_token_s) / speed;
        r.cost.image_s = (g.core.step_time.encoder().image_ms / 1e3) / speed;
        r.step_tokens = g.core.step_tokens;
        r.max_running = g.core.max_running;
        r.kv_tokens = std::uint64_t{g.core.blocks} * g.core.block_tokens;
        p.roles[g.role] = r;
    }
    return p;
}

planner::PlannerOptions options_of(const Scenario& scenario) {
    planner::PlannerOptions o = scenario.planner->options;
    const planner::Profile known = profile_of(scenario);
    for (const planner::RoleOptions& role : o.roles) {
        if (scenario.planner->profile) o.profile.roles[role.role] = known.roles[role.role];
    }
    return o;
}

void finish(planner::LatencyWindow& window, std::vector<double>& values, double limit) {
    window = {};
    if (values.empty()) return;
    std::ranges::sort(values);
    const auto at = [&](double share) {
        return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
    };
    double sum = 0;
    for (const double v : values) sum += v;
    window.count = static_cast<double>(values.size());
    window.within = static_cast<double>(std::ranges::upper_bound(values, limit) - values.begin());
    window.mean_s = sum / window.count;
    window.p50_s = at(0.5);
    window.p99_s = at(0.99);
    values.clear();
}

}  // namespace

Planning::Planning(const Scenario& scenario, Fleet& fleet, std::uint64_t seed)
    : scenario_(scenario), fleet_(fleet), random_(seed * 6'364'136'223'846'793'005U + 17) {
    auto made = planner::Planner::make(options_of(scenario));
    STATOR_CHECK(made.has_value(), "the scenario was checked");
    planner_ = std::move(*made);
}

Nanos Planning::interval() const {
    return Nanos(static_cast<std::int64_t>(planner_->options().interval_s * 1e9));
}

void Planning::offered(const workload::RequestSpec& spec) {
    window_.offered += 1;
    window_.prompt_tokens += static_cast<double>(spec.prompt_tokens());
    window_.media_items += static_cast<double>(spec.images.size());
}

void Planning::first_token(double ttft_s, std::uint64_t prompt_tokens,
                           std::uint64_t cached_tokens) {
    ttfts_.push_back(ttft_s);
    window_.started_prompt_tokens += static_cast<double>(prompt_tokens);
    window_.cached_tokens += static_cast<double>(cached_tokens);
}

void Planning::ended(const report::RequestRecord& record, double gap_s) {
    if (record.outcome == report::Outcome::kRefused) window_.refused += 1;
    window_.output_tokens += record.output_tokens;
    if (record.outcome != report::Outcome::kOk) return;
    window_.finished += 1;
    if (gap_s >= 0) gaps_.push_back(gap_s);
}

std::string Planning::name_of(const Scenario& scenario, const SimWorker& worker,
                              std::uint32_t place) {
    return fmt::format("{}-{}.{}", scenario.groups[worker.group].name, place, worker.life);
}

std::optional<std::uint32_t> Planning::place_of(std::string_view name) const {
    const std::size_t dot = name.rfind('.');
    const std::size_t dash = name.rfind('-', dot);
    if (dot == std::string_view::npos || dash == std::string_view::npos) return std::nullopt;
    std::uint32_t place = 0;
    std::from_chars(name.data() + dash + 1, name.data() + dot, place);
    if (place >= fleet_.size()) return std::nullopt;
    const SimWorker& w = fleet_.worker(place);
    if (w.gone || w.ended || name_of(scenario_, w, place) != name) return std::nullopt;
    return place;
}

std::size_t Planning::group_of(Role role) const {
    const auto& roles = scenario_.planner->options.roles;
    const auto at = std::ranges::find(roles, role, &planner::RoleOptions::role);
    return scenario_.planner->groups[static_cast<std::size_t>(at - roles.begin())];
}

Nanos Planning::start_up() {
    const double noise = scenario_.planner->start_up_noise;
    if (noise <= 0) return scenario_.start_up;
    const double factor = std::exp(std::normal_distribution<double>(0, noise)(random_));
    return Nanos(
        static_cast<std::int64_t>(static_cast<double>(scenario_.start_up.count()) * factor));
}

const Decision& Planning::tick(Nanos now, double queued) {
    planner::Observation seen;
    window_.seconds = to_seconds(now - last_);
    finish(window_.ttft, ttfts_, planner_->options().slo.ttft_s);
    finish(window_.itl, gaps_, planner_->options().slo.itl_s);
    if (window_.seconds > 0) seen.demand = window_;
    window_ = {};
    last_ = now;
    seen.queued = queued;
    for (std::uint32_t i = 0; i < fleet_.size(); ++i) {
        SimWorker& w = fleet_.worker(i);
        if (w.gone || w.ended) continue;
        planner::WorkerObservation o;
        o.name = name_of(scenario_, w, i);
        o.role = scenario_.groups[w.group].role;
        o.state = w.up         ? WorkerState::kReady
                  : w.draining ? WorkerState::kDraining
                               : WorkerState::kStarting;
        o.load = w.core->load();
        o.passes = w.core->metrics();
        o.passes->model_seconds = w.busy_s;
        seen.workers.push_back(std::move(o));
    }
    return planner_->tick(seen, TimePoint{} + now);
}

void Planning::note(report::Collector& into, Nanos now) const {
    const Decision& d = planner_->decisions().back();
    const double t = to_seconds(now);
    for (const planner::ForecastView& f : d.forecasts) {
        const bool next = f.horizon_s <= planner_->options().interval_s;
        if (next) into.note(f.of + " a second", "/s", t, f.actual, "actual");
        const bool also = d.forecasts.size() == 1;
        if (next && !also &&
            f.horizon_s < planner_->options().interval_s + to_seconds(scenario_.start_up)) {
            continue;
        }
        const std::string name = f.of + " a second";
        into.note(name, "/s", t + f.horizon_s, f.mean, "forecast");
        into.note(name, "/s", t + f.horizon_s, f.low, "5 %");
        into.note(name, "/s", t + f.horizon_s, f.high, "95 %");
    }
    for (const planner::RoleDecision& r : d.roles) {
        const std::string name = "planner: " + scenario_.groups[group_of(r.role)].name;
        into.note(name, "workers", t, r.counts.ready, "ready");
        into.note(name, "workers", t, r.need, "needed");
        into.note(name, "workers", t,
                  r.counts.ready + r.counts.starting + r.counts.stuck + r.counts.draining, "all");
        if (std::ranges::any_of(d.actions, [&](const Action& a) { return a.role == r.role; })) {
            into.note(name, "workers", t, r.target, "decisions");
        }
    }
    if (!d.actions.empty() || !d.notes.empty()) {
        std::string text = headline(d);
        for (const planner::RoleDecision& r : d.roles) text += "; " + r.because;
        for (const std::string& note : d.notes) text += "; " + note;
        into.remark(t, std::move(text));
    }
}

}  // namespace stator::sim
