#include "stator/planner/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "stator/planner/action_log.h"
#include "stator/planner/demand_forecast.h"
#include "stator/planner/margin.h"
#include "stator/planner/queue_model.h"
#include "stator/planner/reactive.h"
#include "stator/planner/step_cost_model.h"
#include "stator/planner/victims.h"

namespace stator::planner {
namespace {

constexpr double kLongestGap = 10;       ///< intervals; a longer step of the clock is a jump
constexpr double kBacklogWithin_s = 60;  ///< so soon what waits now should be gone
/// More only if they were needed so long, or for this share of the time that a worker takes to
/// start, where that is shorter: a burst that is over when they are ready is none.
constexpr double kUpAfter_s = 30;
constexpr double kUpAfterShare = 0.25;
constexpr double kContradicts = 1.5;
constexpr double kFullest = 0.9;  ///< of KV memory and sequences
constexpr std::size_t kMostHistory = 4096;

double fine(double v) { return std::isfinite(v) ? std::clamp(v, 0.0, 1e15) : 0.0; }

std::string_view plural(std::uint32_t n) { return n == 1 ? "" : "s"; }

/// What is kept of a role from tick to tick.
struct RoleState {
    const RoleOptions* options = nullptr;  ///< none: not managed
    RoleProfile profile;
    StepCostModel model;
    Margin margin{0.1, 0.5, 2};
    struct Asked {
        double at_s = 0;
        std::uint32_t need = 0;
        std::uint32_t keep = 0;
    };
    std::deque<Asked> asked;                             ///< of the last kUpAfter_s
    std::deque<std::pair<double, std::uint32_t>> wants;  ///< time, what would have been enough
    double last_up_s = -1e18;
    double last_order_s = -1e18;
    int direction = 0;
    std::uint64_t reactive_seen = 0;
    // Of this tick.
    RoleCounts counts;
    double fill = 0;  ///< mean of the ready workers' KV or sequences, whichever is fuller
    double waiting_tokens = 0;
    std::uint32_t keep = 0;     ///< need, with hysteresis: no fewer than these
    std::uint32_t movable = 0;  ///< that another role may have
    bool misses = false;        ///< most requests of the last window were late
};

}  // namespace

struct Planner::Impl {
    explicit Impl(PlannerOptions o) : options(std::move(o)), log(options) {}

    PlannerOptions options;
    std::unique_ptr<DemandForecast> demand;
    ActionLog log;
    PerRole<RoleState> roles;
    std::map<std::string, protocol::ForwardPassMetrics, std::less<>> passes;
    std::deque<Decision> decisions;
    Totals totals;
    std::vector<std::string> refusals;  ///< since the last tick
    // Of this tick: until a worker that is started now is ready, and then.
    DemandForecast::Demand sized;
    DemandForecast::Demand later;

    bool ticked = false;
    TimePoint last;
    double now_s = 0;  ///< planner's own time: only forward, no gaps longer than kLongestGap
    double demand_at_s = 0;
    bool demand_ever = false;
    double offered_at_s = 0;
    double start_up_s = 0;
    std::uint64_t next_action = 1;

    [[nodiscard]] double horizon_s() const { return start_up_s + options.interval_s; }
    [[nodiscard]] bool has(Role role) const { return roles[role].options != nullptr; }

    void pass_time(TimePoint now, Decision& d);
    void look(const Observation& o, Decision& d);
    void learn(const Observation& o);
    void hear_demand(const Observation& o, Decision& d);
    [[nodiscard]] RoleLoad load_of(Role role, const DemandForecast::Demand& demand) const;
    void propose(Role role, const Observation& o, RoleDecision& r);
    void plan(Role role, RoleDecision& r);
    void react(Role role, const Observation& o, RoleDecision& r);
    void constrain(Role role, RoleDecision& r, bool known);
    void fit_budget(std::vector<RoleDecision>& all);
    void order(const Observation& o, Decision& d);
    void start(RoleDecision& r, std::uint32_t count, Decision& d, TimePoint now);
    void note_direction(Role role, int direction);
    [[nodiscard]] Action make_action(Action::Kind kind, Role role, TimePoint now);
};

/// The caller's time may jump; the planner's own does not.
void Planner::Impl::pass_time(TimePoint now, Decision& d) {
    if (!ticked) {
        ticked = true;
        last = now;
        return;
    }
    double dt = to_seconds(now - last);
    last = now;
    if (dt < 0 || dt > kLongestGap * options.interval_s) {
        ++totals.clock_jumps;
        d.notes.push_back(fmt::format("the clock jumped by {:+.1f} s", dt));
        dt = dt < 0 ? 0 : kLongestGap * options.interval_s;
    }
    now_s += dt;
}

void Planner::Impl::look(const Observation& o, Decision& d) {
    log.observe(o.workers, now_s, start_up_s, d.notes);
    for (const double s : log.take_start_ups()) {
        if (s > 0) start_up_s += 0.3 * (std::min(s, 20 * (start_up_s + 1)) - start_up_s);
    }
    PerRole<double> fills;
    for (const Role role : kRoles) {
        RoleState& state = roles[role];
        state.counts = {};
        state.counts.ordered = log.ordered(role);
        state.fill = 0;
        state.waiting_tokens = 0;
    }
    for (const WorkerObservation& w : o.workers) {
        RoleState& state = roles[w.role];
        RoleCounts& c = state.counts;
        if (w.state == WorkerState::kDraining) {
            ++c.draining;
        } else if (w.state == WorkerState::kStarting) {
            ++(log.stuck(w.name) ? c.stuck : c.starting);
        } else {
            ++c.ready;
        }
        if (!w.load || w.state != WorkerState::kReady) continue;
        const auto share = [](double used, double limit) {
            return limit > 0 ? std::min(1.0, used / limit) : 0.0;
        };
        const protocol::LoadReport& l = *w.load;
        state.fill += std::max(
            share(static_cast<double>(l.kv_used_tokens), static_cast<double>(l.kv_total_tokens)),
            share(l.running, l.running_limit));
        state.waiting_tokens += static_cast<double>(l.waiting_tokens);
        fills[w.role] += 1;
    }
    for (const Role role : kRoles) {
        if (fills[role] > 0) roles[role].fill /= fills[role];
    }
}

/// What forward passes took since the last observation.
void Planner::Impl::learn(const Observation& o) {
    for (const Role role : kRoles) roles[role].model.fade();
    std::map<std::string, protocol::ForwardPassMetrics, std::less<>> seen;
    double encoder_seconds = 0;
    for (const WorkerObservation& w : o.workers) {
        if (!w.passes) continue;
        const protocol::ForwardPassMetrics& after = *w.passes;
        const auto before = passes.find(w.name);
        if (before != passes.end() && after.steps >= before->second.steps &&
            after.prefill_tokens >= before->second.prefill_tokens &&
            after.decode_tokens >= before->second.decode_tokens &&
            after.model_seconds >= before->second.model_seconds) {
            const auto& b = before->second;
            const double seconds = after.model_seconds - b.model_seconds;
            roles[w.role].model.observe(
                static_cast<double>(after.steps - b.steps),
                static_cast<double>(after.prefill_tokens - b.prefill_tokens),
                static_cast<double>(after.decode_tokens - b.decode_tokens), seconds);
            if (w.role == Role::kEncode) encoder_seconds += seconds;
        }
        seen.emplace(w.name, after);
    }
    passes = std::move(seen);
    if (o.demand && has(Role::kEncode)) {
        roles[Role::kEncode].model.observe_images(fine(o.demand->media_items), encoder_seconds);
    }
}

void Planner::Impl::hear_demand(const Observation& o, Decision& d) {
    if (!o.demand || !(o.demand->seconds > 0) || !std::isfinite(o.demand->seconds)) {
        const double silent = now_s - demand_at_s;
        if (silent >= options.interval_s) {
            demand->observe_missing(1);
            ++totals.windows_missed;
        }
        d.degraded.push_back(demand_ever ? fmt::format("no demand was seen for {:.0f} s", silent)
                                         : std::string("no demand was seen yet"));
        return;
    }
    demand_at_s = now_s;
    demand_ever = true;
    demand->observe(*o.demand);
    if (o.demand->offered > 0) offered_at_s = now_s;
    for (const Role role : kRoles) {
        RoleState& state = roles[role];
        state.misses = false;
        // Where orders have no effect, a larger margin has none either.
        if (!has(role) || state.counts.stuck > 0 || log.up_blocked_s(role, now_s) > 0) continue;
        const LatencyWindow& t = o.demand->ttft;
        const LatencyWindow& i = o.demand->itl;
        const double refused = fine(o.demand->refused);
        const auto missed = [](const LatencyWindow& w) {
            return w.count > 0 ? (w.count - w.within) / w.count : 0.0;
        };
        const bool decodes = role == Role::kAggregated || role == Role::kDecode;
        const bool prompts = role != Role::kDecode;
        const double miss = std::max(prompts ? missed(t) : 0, decodes ? missed(i) : 0);
        const double count = std::max(prompts ? t.count : 0, decodes ? i.count : 0);
        state.misses = miss > 0.5;
        state.margin.observe(count + refused, count * (1 - miss), options.slo.share);
    }
}

RoleLoad Planner::Impl::load_of(Role role, const DemandForecast::Demand& asked) const {
    const double margin = roles[role].margin.value();
    const double computed = 1 - demand->cached_ratio();
    RoleLoad load;
    load.requests = asked.requests * margin;
    load.prefill_tokens = asked.prompt_tokens * computed * margin;
    load.decode_tokens = std::max(asked.requests, asked.output_tokens) * margin;
    load.images = asked.images * margin;
    load.prompt = std::max(1.0, demand->isl() * computed);
    load.context = demand->isl() + 0.5 * demand->osl();
    return load;
}

/// What the forecast demands, by the model.
void Planner::Impl::plan(Role role, RoleDecision& r) {
    RoleState& state = roles[role];
    const RoleCounts& c = state.counts;
    const std::uint32_t there = std::max(1U, c.committed());
    if (!state.model.known()) {
        r.need = there;
        r.bound = Bound::kInputs;
        r.because = "nothing is known yet of what steps take";
        return;
    }
    DemandForecast::Demand asked = later;
    if (role == Role::kAggregated || role == Role::kPrefill) {
        asked.prompt_tokens += state.waiting_tokens / kBacklogWithin_s;
    }
    RoleLoad load = load_of(role, asked);
    const auto enough = [&] {
        return planner::need(role, state.profile, state.model.cost(), load, state.options->max,
                             options.slo);
    };
    const Need n = enough();
    r.need = n.workers;
    // Those that are there are kept for what comes sooner, too.
    load = load_of(role, sized);
    for (double* v : {&load.requests, &load.prefill_tokens, &load.decode_tokens, &load.images}) {
        *v *= 1 + options.hysteresis;
    }
    state.keep = enough().workers;
    r.utilization = n.expected.utilization;
    r.because = fmt::format(
        "{:.2f} requests/s, {:.0f} prompt and {:.0f} output tokens/s at the {:.0f} % quantile, "
        "margin {:.2f}",
        asked.requests, asked.prompt_tokens, asked.output_tokens, 100 * options.quantile,
        state.margin.value());
    if (!n.reachable) {
        r.bound = Bound::kUnreachable;
        r.because += "; the SLO is not met by any number of workers";
    }
    if (role == Role::kAggregated || role == Role::kDecode) {
        const double now = std::max(1e-9, demand->last().requests);
        const double growth = std::clamp(asked.requests / now, 1.0, 2.0);
        const auto memory = static_cast<std::uint32_t>(
            std::ceil(c.ready * std::min(1.0, state.fill) * growth / kFullest));
        if (memory > r.need && state.fill > 0.5) {
            r.need = memory;
            r.because +=
                fmt::format("; {:.0f} % of the KV memory or sequences are taken", 100 * state.fill);
        }
    }
}

void Planner::Impl::react(Role role, const Observation& o, RoleDecision& r) {
    RoleState& state = roles[role];
    const RoleCounts& c = state.counts;
    r.need = std::max(1U, c.committed());
    if (++state.reactive_seen <= options.reactive.observations || !state.model.known()) {
        r.bound = Bound::kInputs;
        r.because = "too little was observed yet";
        return;
    }
    if (options.reactive.waits && (c.starting + c.ordered + c.draining > 0)) {
        r.because = "a worker starts or drains";
        return;
    }
    const double isl = demand->isl() * (1 - demand->cached_ratio());
    const ReactiveStep step =
        reactive_step(role, o.workers, state.profile, state.model.cost(), isl, options.reactive);
    r.because = step.because;
    if (step.change > 0) ++r.need;
    if (step.change < 0 && r.need > 1) --r.need;
}

void Planner::Impl::propose(Role role, const Observation& o, RoleDecision& r) {
    RoleState& state = roles[role];
    r.role = role;
    r.counts = state.counts;
    r.margin = state.margin.value();
    state.keep = 0;
    const std::uint32_t there = state.counts.committed();
    if (options.policy == PolicyKind::kStatic) {
        r.need = state.options->initial;
        r.because = "so many were asked for";
    } else if (there == 0 && state.options->min == 0 && now_s - offered_at_s > options.interval_s) {
        r.need = 0;
        r.because = "there is no demand";
    } else if (options.policy == PolicyKind::kReactive) {
        react(role, o, r);
    } else if (!demand->any()) {
        r.need = std::max({there, state.options->initial, 1U});
        r.bound = Bound::kInputs;
        r.because = "no demand was seen yet";
    } else {
        plan(role, r);
    }
    const bool idle = demand_ever && now_s - offered_at_s >= options.zero_after_s;
    if (options.allow_zero && state.options->min == 0 && idle && state.waiting_tokens <= 0 &&
        options.policy != PolicyKind::kStatic) {
        r.need = 0;
        state.keep = 0;
        r.because = fmt::format("there was no demand for {:.0f} s", now_s - offered_at_s);
    }
}

/// From what is needed to what is aimed at.
void Planner::Impl::constrain(Role role, RoleDecision& r, bool known) {
    RoleState& state = roles[role];
    const RoleOptions& o = *state.options;
    const std::uint32_t there = state.counts.committed();
    const auto bind = [&](Bound bound, std::uint32_t target) {
        r.target = target;
        r.bound = bound;
    };
    // Neither more nor to be kept: what a burst asks for that is over before it could be helped.
    state.asked.push_back({now_s, r.need, state.keep});
    const double up_after_s = std::min(kUpAfter_s, kUpAfterShare * start_up_s);
    while (state.asked.front().at_s < now_s - up_after_s) state.asked.pop_front();
    r.target = r.need;
    if (options.policy == PolicyKind::kPlanned && there > 0) {
        for (const auto& asked : state.asked) {
            r.target = std::min(r.target, asked.need);
            state.keep = std::min(state.keep, asked.keep);
        }
        if (r.target < r.need && r.need > there) bind(Bound::kHysteresis, r.target);
    }
    const bool zero = o.min == 0 && options.allow_zero && r.need == 0;
    const std::uint32_t least = zero ? 0 : std::max(1U, o.min);
    if (r.target < least) bind(Bound::kMin, least);
    if (r.target > o.max) bind(Bound::kMax, o.max);
    state.movable = 0;
    if (!known) return bind(Bound::kInputs, there);

    const std::uint32_t keep = std::min(std::max(r.target, state.keep), o.max);
    state.wants.emplace_back(now_s, keep);
    while (!state.wants.empty() && (state.wants.front().first < now_s - options.down_after_s ||
                                    state.wants.size() > kMostHistory)) {
        state.wants.pop_front();
    }
    std::uint32_t held = 0;
    std::uint32_t lately = 0;
    for (const auto& [at, want] : state.wants) {
        held = std::max(held, want);
        if (at >= now_s - options.down_after_s / 4) lately = std::max(lately, want);
    }
    const bool moves = options.policy == PolicyKind::kPlanned && now_s >= options.down_after_s / 4;
    state.movable = moves && there > lately ? there - lately : 0;
    if (r.target > there) {
        if (const double s = log.up_blocked_s(role, now_s); s > 0) {
            r.because += fmt::format("; orders had no effect, the next is in {:.0f} s", s);
            return bind(Bound::kBackoff, there);
        }
        if (now_s - state.last_up_s < options.up_cooldown_s) return bind(Bound::kCooldown, there);
        if (options.most_at_once > 0 && r.target - there > options.most_at_once) {
            bind(Bound::kRate, there + options.most_at_once);
        }
        return;
    }
    if (r.target >= there || options.policy == PolicyKind::kStatic) return;
    if (options.policy == PolicyKind::kPlanned) {
        held = std::min(held, there);
        // Too little was seen so far to say that fewer are enough.
        const bool young = now_s < options.down_after_s;
        if (young) held = there;
        // Whatever the model says: those that are there do not do.
        if (state.misses) {
            held = there;
            r.because += "; limits are missed, none is given up";
        }
        const auto slack = static_cast<std::uint32_t>(options.deadband * there);
        if (there - held <= slack) held = there;
        if (held > r.target) bind(Bound::kHysteresis, held);
        if (r.target == there) return;
        if (now_s - demand_at_s > options.stale_after_s) return bind(Bound::kInputs, there);
    }
    if (now_s - state.last_order_s < options.down_cooldown_s &&
        options.policy == PolicyKind::kPlanned) {
        bind(Bound::kCooldown, there);
    }
}

/// Devices: whoever has most of what it needs gives one up first, down to its minimum.
void Planner::Impl::fit_budget(std::vector<RoleDecision>& all) {
    if (options.device_budget == 0) return;
    const auto devices = [&](const RoleDecision& r) { return roles[r.role].options->devices; };
    std::uint64_t taken = 0;
    for (const RoleDecision& r : all) {
        taken += std::uint64_t{devices(r)} * (r.target + r.counts.draining + r.counts.stuck);
    }
    while (taken > options.device_budget) {
        RoleDecision* giver = nullptr;
        double most = -1;
        for (RoleDecision& r : all) {
            const std::uint32_t least = std::max(1U, roles[r.role].options->min);
            // Those that drain give their devices back by themselves: only additions wait for them.
            const std::uint32_t there = r.counts.committed();
            const bool adds = r.target > there;
            if (r.target <= least) continue;
            const double has = static_cast<double>(r.target) / std::max(1U, r.need);
            const double rank = has + (adds ? 1000 : 0);
            if (rank > most) {
                most = rank;
                giver = &r;
            }
        }
        if (giver == nullptr) return;
        if (giver->target <= giver->counts.committed()) {
            // Nobody adds any more: what is there goes only if it is too much without those that
            // drain.
            std::uint64_t kept = 0;
            for (const RoleDecision& r : all) kept += std::uint64_t{devices(r)} * r.target;
            if (kept <= options.device_budget) return;
        }
        --giver->target;
        giver->bound = Bound::kBudget;
        taken -= devices(*giver);
    }
}

Action Planner::Impl::make_action(Action::Kind kind, Role role, TimePoint now) {
    Action a;
    a.id = next_action++;
    a.kind = kind;
    a.role = a.to = role;
    a.deadline = now + std::chrono::nanoseconds(static_cast<std::int64_t>(
                           1e9 * std::max(options.appear_within_s, 2.5 * options.interval_s)));
    return a;
}

void Planner::Impl::note_direction(Role role, int direction) {
    RoleState& state = roles[role];
    if (state.direction != 0 && state.direction != direction) ++totals.direction_changes;
    state.direction = direction;
    state.last_order_s = now_s;
    if (direction > 0) state.last_up_s = now_s;
}

void Planner::Impl::start(RoleDecision& r, std::uint32_t count, Decision& d, TimePoint now) {
    Action a = make_action(Action::Kind::kStart, r.role, now);
    a.count = count;
    a.expects = fmt::format("{} more {} worker{} to be seen within {:.0f} s, ready after {:.0f} s",
                            count, protocol::to_string(r.role), plural(count),
                            to_seconds(a.deadline - now), start_up_s);
    note_direction(r.role, 1);
    totals.started += count;
    d.actions.push_back(std::move(a));
}

void Planner::Impl::order(const Observation& o, Decision& d) {
    const auto avoid = [&](const WorkerObservation& w) { return log.avoid(w.name, now_s); };
    const auto stuck = [&](const WorkerObservation& w) { return log.stuck(w.name); };
    std::vector<std::string_view> taken;
    const auto free = [&](const WorkerObservation& w) {
        return avoid(w) || std::ranges::find(taken, w.name) != taken.end();
    };
    PerRole<std::uint32_t> missing;
    PerRole<std::uint32_t> spare;
    for (const RoleDecision& r : d.roles) {
        const std::uint32_t there = r.counts.committed();
        missing[r.role] = r.target > there ? r.target - there : 0;
        spare[r.role] = there > r.target ? there - r.target : 0;
    }
    // A worker that changes its role costs no start.
    for (RoleDecision& from : d.roles) {
        std::uint32_t movable = std::max(spare[from.role], roles[from.role].movable);
        for (RoleDecision& to : d.roles) {
            while (movable > 0 && missing[to.role] > 0) {
                const auto cannot = [&](const WorkerObservation& w) {
                    return free(w) || w.state != WorkerState::kReady ||
                           std::ranges::find(w.can_be, to.role) == w.can_be.end();
                };
                const auto victims = choose_victims(o.workers, from.role, 1, cannot, stuck);
                if (victims.empty()) break;
                Action a = make_action(Action::Kind::kMove, from.role, d.at);
                a.to = to.role;
                a.worker = victims[0].worker->name;
                a.because = victims[0].because;
                a.expects = fmt::format("{} to be a {} worker within {:.0f} s", a.worker,
                                        protocol::to_string(a.to), to_seconds(a.deadline - d.at));
                taken.push_back(victims[0].worker->name);
                --movable;
                if (spare[from.role] > 0) {
                    --spare[from.role];
                } else {
                    --from.target;
                }
                --missing[to.role];
                ++totals.moved;
                note_direction(from.role, -1);
                note_direction(to.role, 1);
                d.actions.push_back(std::move(a));
            }
        }
    }
    for (RoleDecision& r : d.roles) {
        if (missing[r.role] > 0) start(r, missing[r.role], d, d.at);
        // Those that never became ready go as well, once, when others are ordered in their place.
        std::size_t count = spare[r.role];
        if (r.counts.stuck > 0) count += r.counts.stuck;
        if (count == 0) continue;
        const auto only_stuck = [&](const WorkerObservation& w) {
            return free(w) || (spare[r.role] == 0 && !stuck(w));
        };
        for (const Victim& victim : choose_victims(o.workers, r.role, count, only_stuck, stuck)) {
            Action a = make_action(Action::Kind::kDrain, r.role, d.at);
            a.worker = victim.worker->name;
            a.because = victim.because;
            a.expects =
                fmt::format("{} to drain within {:.0f} s", a.worker, to_seconds(a.deadline - d.at));
            if (!stuck(*victim.worker)) note_direction(r.role, -1);
            ++totals.drained;
            d.actions.push_back(std::move(a));
        }
    }
    if (options.advisory) return;
    for (const Action& a : d.actions) log.add(a, now_s);
}

Planner::Planner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Planner::~Planner() = default;

Result<std::unique_ptr<Planner>> Planner::make(PlannerOptions options) {
    if (auto ok = check(options); !ok) return tl::unexpected(std::move(ok.error()));
    auto impl = std::make_unique<Impl>(std::move(options));
    auto demand = DemandForecast::make(impl->options);
    if (!demand) return tl::unexpected(std::move(demand.error()));
    impl->demand = std::move(*demand);
    impl->start_up_s = impl->options.start_up_s;
    for (const RoleOptions& role : impl->options.roles) {
        RoleState& state = impl->roles[role.role];
        const auto& profile = impl->options.profile.roles[role.role];
        state.options = &role;
        if (profile) state.profile = *profile;
        if (profile && profile->start_up_s > 0) impl->start_up_s = profile->start_up_s;
        state.model = StepCostModel(profile);
        state.margin = Margin(impl->options.margin_gain, impl->options.least_margin,
                              impl->options.most_margin);
    }
    return std::unique_ptr<Planner>(new Planner(std::move(impl)));
}

const Decision& Planner::tick(const Observation& observation, TimePoint now) {
    Impl& i = *impl_;
    ++i.totals.ticks;
    Decision d;
    d.id = i.totals.ticks;
    d.at = now;
    d.policy = i.options.policy;
    d.advisory = i.options.advisory;
    d.demand = observation.demand;
    d.notes = std::exchange(i.refusals, {});
    i.pass_time(now, d);
    if (observation.workers_known && observation.workers.size() <= i.options.most_workers) {
        i.look(observation, d);
        i.learn(observation);
    } else {
        d.degraded.emplace_back("which workers there are could not be found out");
    }
    i.hear_demand(observation, d);
    d.cached_ratio = i.demand->cached_ratio();
    d.isl = i.demand->isl();
    d.osl = i.demand->osl();
    if (i.demand->any()) {
        d.forecasts = i.demand->views(i.horizon_s(), i.options.quantile);
        i.sized = i.demand->sized(i.horizon_s(), i.options.quantile);
        i.later = i.demand->sized_at(i.horizon_s(), i.options.quantile);
    }
    const bool known = observation.workers_known;
    for (const RoleOptions& role : i.options.roles) {
        RoleDecision& r = d.roles.emplace_back();
        i.propose(role.role, observation, r);
        i.constrain(role.role, r, known);
        const RoleState& state = i.roles[role.role];
        const double off = state.model.contradiction();
        if (off > kContradicts || off < 1 / kContradicts) {
            d.degraded.push_back(
                fmt::format("{} workers take {:.2f} times as long as their profile says",
                            protocol::to_string(role.role), off));
        }
    }
    i.fit_budget(d.roles);
    if (i.demand->any()) {
        for (RoleDecision& r : d.roles) {
            const RoleState& state = i.roles[r.role];
            if (!state.model.known() || r.target == 0) continue;
            const Expected e =
                expect(r.role, state.model.cost(), std::max(1U, state.profile.step_tokens),
                       i.load_of(r.role, i.sized), r.target, i.options.slo);
            r.ttft_miss = e.ttft_miss;
            r.itl_s = std::isfinite(e.itl_s) ? e.itl_s : 0;
        }
    }
    for (std::string& trouble : i.log.troubles(i.now_s)) d.degraded.push_back(std::move(trouble));
    if (known) i.order(observation, d);
    i.totals.without_effect = i.log.without_effect();
    i.decisions.push_back(std::move(d));
    while (i.decisions.size() > i.options.decisions) i.decisions.pop_front();
    return i.decisions.back();
}

void Planner::refused(std::uint64_t action, std::string_view why, TimePoint /*now*/) {
    if (!impl_->log.refuse(action, impl_->now_s)) return;
    ++impl_->totals.refused;
    if (impl_->refusals.size() < 16) {
        impl_->refusals.push_back(fmt::format("order {} was refused: {}", action, why));
    }
}

const std::deque<Decision>& Planner::decisions() const { return impl_->decisions; }
const PlannerOptions& Planner::options() const { return impl_->options; }
const Planner::Totals& Planner::totals() const { return impl_->totals; }
StepCost Planner::learned(Role role) const { return impl_->roles[role].model.cost(); }

Result<void> Planner::set_bounds(Role role, std::uint32_t min, std::uint32_t max) {
    PlannerOptions changed = impl_->options;
    const auto at = std::ranges::find(changed.roles, role, &RoleOptions::role);
    if (at == changed.roles.end()) {
        return error(ErrorCode::kInvalidArgument, "The role {} is not managed.",
                     protocol::to_string(role));
    }
    at->min = min;
    at->max = max;
    if (auto ok = check(changed); !ok) return ok;
    const auto index = at - changed.roles.begin();
    impl_->options.roles[static_cast<std::size_t>(index)] = *at;  // keeps its place in memory
    return {};
}

Result<void> Planner::set_device_budget(std::uint32_t devices) {
    impl_->options.device_budget = devices;
    return {};
}

}  // namespace stator::planner
