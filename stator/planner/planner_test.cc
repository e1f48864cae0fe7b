#include "stator/planner/planner.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "stator/codec/json.h"

namespace stator::planner {
namespace {

constexpr double kStartUp = 60;

PlannerOptions options() {
    PlannerOptions o;
    o.predictor = "ewma";
    o.start_up_s = kStartUp;
    o.roles = {{Role::kAggregated, 2, 1, 64, 1}};
    RoleProfile p;
    p.cost = {0.005, 2e-5, 2e-4, 0};
    o.profile.roles[Role::kAggregated] = p;
    return o;
}

/// A fleet that does what it is told, as far as it is allowed to.
class World {
  public:
    explicit World(PlannerOptions o) : planner(*Planner::make(std::move(o))) {
        for (const RoleOptions& role : planner->options().roles) {
            for (std::uint32_t i = 0; i < role.initial; ++i) add(role.role, WorkerState::kReady);
        }
    }

    const Decision& tick(double rate) {
        time += planner->options().interval_s;
        for (auto& w : workers) {
            if (w.seen.state == WorkerState::kStarting && becomes_ready && time >= w.ready_at) {
                w.seen.state = WorkerState::kReady;
            }
        }
        std::erase_if(workers,
                      [](const auto& w) { return w.seen.state == WorkerState::kDraining; });
        Observation o;
        const double s = planner->options().interval_s;
        DemandWindow d;
        d.seconds = s;
        d.offered = rate * s;
        d.prompt_tokens = 1000 * d.offered;
        d.started_prompt_tokens = d.prompt_tokens;
        d.finished = d.offered;
        d.output_tokens = 100 * d.offered;
        d.ttft = {d.offered, d.offered, 0.1, 0.1, 0.2};
        d.itl = d.ttft;
        o.demand = d;
        for (const auto& w : workers) o.workers.push_back(w.seen);
        const Decision& decision = planner->tick(o, TimePoint{} + ns(time));
        for (const Action& a : decision.actions) act(a);
        return decision;
    }

    void act(const Action& a) {
        if (refuses) return planner->refused(a.id, "no", TimePoint{} + ns(time));
        if (lies) return;
        for (std::uint32_t i = 0; a.kind == Action::Kind::kStart && i < a.count; ++i) {
            add(a.role, WorkerState::kStarting);
        }
        for (auto& w : workers) {
            if (w.seen.name != a.worker) continue;
            if (a.kind == Action::Kind::kDrain) w.seen.state = WorkerState::kDraining;
            if (a.kind == Action::Kind::kMove) w.seen.role = a.to;
        }
    }

    void add(Role role, WorkerState state) {
        Worker w;
        w.seen.name = fmt::format("w{}", ++made);
        w.seen.role = role;
        w.seen.state = state;
        w.seen.load = protocol::LoadReport{};
        w.ready_at = time + kStartUp;
        workers.push_back(w);
    }

    [[nodiscard]] std::size_t ready() const {
        return static_cast<std::size_t>(std::ranges::count_if(
            workers, [](const auto& w) { return w.seen.state == WorkerState::kReady; }));
    }
    static std::chrono::nanoseconds ns(double s) {
        return std::chrono::nanoseconds(static_cast<std::int64_t>(s * 1e9));
    }

    struct Worker {
        WorkerObservation seen;
        double ready_at = 0;
    };
    std::unique_ptr<Planner> planner;
    std::vector<Worker> workers;
    double time = 1000;
    int made = 0;
    bool refuses = false;
    bool lies = false;
    bool becomes_ready = true;
};

bool finite(const Decision& d) {
    for (const ForecastView& f : d.forecasts) {
        for (const double v : {f.actual, f.mean, f.low, f.high, f.sized}) {
            if (!std::isfinite(v) || v < 0) return false;
        }
    }
    for (const RoleDecision& r : d.roles) {
        for (const double v : {r.utilization, r.ttft_miss, r.itl_s, r.margin}) {
            if (!std::isfinite(v) || v < 0) return false;
        }
    }
    return std::isfinite(d.isl) && std::isfinite(d.osl) && std::isfinite(d.cached_ratio);
}

TEST(Planner, SeveralAtOnceWhenTheLoadJumps) {
    World w(options());
    for (int i = 0; i < 30; ++i) w.tick(20);
    const std::size_t before = w.ready();
    const Decision* first = nullptr;
    for (int i = 0; i < 3 && first == nullptr; ++i) {
        const Decision& d = w.tick(300);
        if (!d.actions.empty()) first = &d;
    }
    ASSERT_NE(first, nullptr);
    EXPECT_EQ(first->actions.front().kind, Action::Kind::kStart);
    EXPECT_GE(first->actions.front().count, 2U);
    for (int i = 0; i < 20; ++i) w.tick(300);
    // 300 requests/s of 1000 · 20 µs + 100 · 200 µs are 12 s of work each second.
    EXPECT_GE(w.ready(), 12U);
    EXPECT_LE(w.ready(), 24U);
    EXPECT_GT(w.ready(), before);
}

TEST(Planner, GoesDownAgainByNameAndLeastLoss) {
    World w(options());
    for (int i = 0; i < 40; ++i) w.tick(200);
    const std::size_t high = w.ready();
    for (std::size_t i = 0; i < w.workers.size(); ++i) {
        w.workers[i].seen.load->kv_cached_tokens = 1000 * (i + 1);
    }
    w.workers[3].seen.load->kv_cached_tokens = 5;
    const std::string least = w.workers[3].seen.name;
    std::string victim;
    for (int i = 0; i < 60; ++i) {
        const Decision& d = w.tick(20);
        for (const Action& a : d.actions) {
            if (a.kind == Action::Kind::kDrain && victim.empty()) victim = a.worker;
        }
    }
    EXPECT_EQ(victim, least);
    EXPECT_LT(w.ready(), high / 2);
    EXPECT_GE(w.ready(), 1U);
}

TEST(Planner, SteadyLoadDoesNotOscillate) {
    World w(options());
    for (int i = 0; i < 1000; ++i) w.tick(150 + 15 * std::sin(i * 0.7) + (i * 7919 % 13) - 6);
    EXPECT_LE(w.planner->totals().direction_changes, 4U);
}

TEST(Planner, ALyingActuatorIsNoticedAndNotAskedEachTick) {
    World w(options());
    w.lies = true;
    std::uint64_t orders = 0;
    bool said = false;
    bool degraded = false;
    for (int i = 0; i < 360; ++i) {
        const Decision& d = w.tick(300);
        orders += d.actions.size();
        for (const std::string& note : d.notes) said = said || note.contains("had no effect");
        degraded = degraded || !d.degraded.empty();
    }
    EXPECT_TRUE(said);
    EXPECT_TRUE(degraded);
    EXPECT_GE(orders, 2U);
    EXPECT_LE(orders, 12U);
    EXPECT_GE(w.planner->totals().without_effect, 2U);
}

TEST(Planner, ARefusalBacksOff) {
    World w(options());
    w.refuses = true;
    std::uint64_t orders = 0;
    for (int i = 0; i < 360; ++i) orders += w.tick(300).actions.size();
    EXPECT_GE(orders, 3U);
    EXPECT_LE(orders, 16U);
    EXPECT_EQ(w.planner->totals().refused, orders);
}

TEST(Planner, WorkersThatNeverBecomeReadyAreReplacedSlowly) {
    World w(options());
    w.becomes_ready = false;
    bool stuck = false;
    for (int i = 0; i < 360; ++i) stuck = stuck || w.tick(100).roles[0].counts.stuck > 0;
    EXPECT_TRUE(stuck);
    EXPECT_LE(w.made, 40);
    EXPECT_EQ(w.ready(), 2U);
}

TEST(Planner, MissingDemandTakesNothingAway) {
    World w(options());
    for (int i = 0; i < 40; ++i) w.tick(200);
    const std::size_t before = w.ready();
    Observation o;
    for (const auto& x : w.workers) o.workers.push_back(x.seen);
    for (int i = 0; i < 400; ++i) {
        w.time += 10;
        const Decision& d = w.planner->tick(o, TimePoint{} + World::ns(w.time));
        for (const Action& a : d.actions) EXPECT_NE(a.kind, Action::Kind::kDrain);
        EXPECT_FALSE(d.degraded.empty());
    }
    EXPECT_EQ(w.ready(), before);
}

TEST(Planner, ToZeroOnlyWhereAllowed) {
    World w(options());
    for (int i = 0; i < 300; ++i) w.tick(0);
    EXPECT_EQ(w.ready(), 1U);
    PlannerOptions o = options();
    o.allow_zero = true;
    o.roles[0].min = 0;
    World z(o);
    for (int i = 0; i < 300; ++i) z.tick(0);
    EXPECT_EQ(z.ready(), 0U);
    for (int i = 0; i < 20; ++i) z.tick(1);
    EXPECT_GE(z.ready(), 1U);
}

TEST(Planner, OneRequestIsNoReasonForMore) {
    World w(options());
    for (int i = 0; i < 100; ++i) w.tick(i == 50 ? 0.1 : 0);
    EXPECT_EQ(w.ready(), 1U);
}

TEST(Planner, KeepsTheBudget) {
    PlannerOptions o = options();
    o.roles[0].devices = 2;
    o.device_budget = 9;
    World w(o);
    bool bound = false;
    for (int i = 0; i < 60; ++i) {
        const Decision& d = w.tick(500);
        bound = bound || d.roles[0].bound == Bound::kBudget;
    }
    SCOPED_TRACE(explain(w.planner->decisions().back(), TimePoint{}));
    EXPECT_TRUE(bound);
    EXPECT_EQ(w.ready(), 4U);
}

TEST(Planner, MovesWorkersThatCanSwitch) {
    PlannerOptions o = options();
    o.roles = {{Role::kPrefill, 6, 1, 20, 1}, {Role::kDecode, 1, 1, 20, 1}};
    o.profile.roles[Role::kPrefill] = o.profile.roles[Role::kAggregated];
    RoleProfile decode;
    decode.cost = {0.02, 0, 2e-3, 0};
    o.profile.roles[Role::kDecode] = decode;
    o.down_after_s = 1000;
    World w(o);
    for (auto& x : w.workers) x.seen.can_be = {Role::kPrefill, Role::kDecode};
    for (int i = 0; i < 20; ++i) w.tick(2);
    for (int i = 0; i < 20; ++i) w.tick(10);
    EXPECT_GT(w.planner->totals().moved, 0U);
}

TEST(Planner, ClockJumpsAreSurvived) {
    World w(options());
    for (int i = 0; i < 40; ++i) w.tick(100);
    const std::size_t before = w.ready();
    w.time += 1e6;
    w.tick(100);
    w.time -= 2e6;
    for (int i = 0; i < 40; ++i) EXPECT_TRUE(finite(w.tick(100)));
    EXPECT_EQ(w.planner->totals().clock_jumps, 2U);
    EXPECT_NEAR(static_cast<double>(w.ready()), static_cast<double>(before), 1);
}

TEST(Planner, AProfileThatIsWrongIsReportedAndOverruled) {
    World w(options());
    protocol::ForwardPassMetrics total;
    for (int i = 0; i < 60; ++i) {
        // Three times as slow as the profile says.
        const std::uint64_t steps = 500 + i % 7 * 20;
        const std::uint64_t prefill = 150'000 + i % 5 * 9000;
        const std::uint64_t decode = 10'000 + i % 3 * 900;
        total.steps += steps;
        total.prefill_tokens += prefill;
        total.decode_tokens += decode;
        total.model_seconds +=
            3 * (0.005 * static_cast<double>(steps) + 2e-5 * static_cast<double>(prefill) +
                 2e-4 * static_cast<double>(decode));
        for (auto& x : w.workers) x.seen.passes = total;
        const Decision& d = w.tick(50);
        if (i == 59) {
            EXPECT_TRUE(std::ranges::any_of(
                d.degraded, [](const std::string& s) { return s.contains("profile"); }));
        }
    }
    EXPECT_NEAR(w.planner->learned(Role::kAggregated).prefill_token_s, 6e-5, 1e-5);
}

TEST(Planner, DecisionsAreBoundedAndReadable) {
    PlannerOptions o = options();
    o.decisions = 16;
    World w(o);
    for (int i = 0; i < 40; ++i) w.tick(100);
    EXPECT_EQ(w.planner->decisions().size(), 16U);
    const Decision& d = w.planner->decisions().back();
    std::string json;
    write_json(json, d, d.at, 1e9);
    codec::JsonDocument document;
    const auto read = document.parse(json);
    ASSERT_TRUE(read) << json;
    EXPECT_EQ(read->find("id").as_uint(), d.id);
    EXPECT_EQ(read->find("roles").size(), 1U);
    EXPECT_TRUE(explain(d, d.at).contains("needs"));
    EXPECT_FALSE(headline(d).empty());
}

TEST(Planner, StaticIsWhatWasAskedFor) {
    PlannerOptions o = options();
    o.policy = PolicyKind::kStatic;
    o.roles[0].initial = 5;
    World w(o);
    w.workers.resize(3);
    for (int i = 0; i < 20; ++i) w.tick(i * 10);
    EXPECT_EQ(w.ready(), 5U);
}

TEST(Planner, RefusesOptionsThatCantBe) {
    PlannerOptions o = options();
    o.roles.push_back(o.roles[0]);
    EXPECT_FALSE(Planner::make(o));
    o = options();
    o.roles[0].min = 0;
    EXPECT_FALSE(Planner::make(o));
    o = options();
    o.predictor = "tea leaves";
    EXPECT_FALSE(Planner::make(o));
    o = options();
    o.quantile = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(Planner::make(o));
}

double wild() {
    switch (*rc::gen::inRange(0, 8)) {
        case 0:
            return std::numeric_limits<double>::quiet_NaN();
        case 1:
            return std::numeric_limits<double>::infinity();
        case 2:
            return -1e9;
        case 3:
            return 1e300;
        default:
            return *rc::gen::inRange(0, 100'000);
    }
}

TEST(PlannerProperty, GarbageGivesNoGarbage) {
    EXPECT_TRUE(rc::check([] {
        PlannerOptions o = options();
        o.policy = *rc::gen::element(PolicyKind::kPlanned, PolicyKind::kReactive);
        auto planner = *Planner::make(o);
        TimePoint now;
        for (int i = 0; i < 40; ++i) {
            now = now + World::ns(*rc::gen::inRange(-100, 300));
            Observation seen;
            seen.workers_known = *rc::gen::inRange(0, 10) > 0;
            if (*rc::gen::inRange(0, 4) > 0) {
                DemandWindow d;
                d.seconds = wild();
                d.offered = wild();
                d.refused = wild();
                d.prompt_tokens = wild();
                d.started_prompt_tokens = wild();
                d.cached_tokens = wild();
                d.media_items = wild();
                d.finished = wild();
                d.output_tokens = wild();
                d.ttft = {wild(), wild(), wild(), wild(), wild()};
                d.itl = {wild(), wild(), wild(), wild(), wild()};
                seen.demand = d;
            }
            const int n = *rc::gen::inRange(0, 5);
            for (int k = 0; k < n; ++k) {
                WorkerObservation w;
                w.name = fmt::format("w{}", *rc::gen::inRange(0, 8));
                w.role = *rc::gen::element(Role::kAggregated, Role::kDecode);
                w.state = static_cast<WorkerState>(*rc::gen::inRange(1, 4));
                w.load = protocol::LoadReport{};
                w.load->running = *rc::gen::arbitrary<std::uint32_t>();
                w.load->waiting_tokens = *rc::gen::arbitrary<std::uint64_t>();
                w.passes = protocol::ForwardPassMetrics{};
                w.passes->steps = *rc::gen::arbitrary<std::uint16_t>();
                w.passes->prefill_tokens = *rc::gen::arbitrary<std::uint32_t>();
                w.passes->model_seconds = wild();
                seen.workers.push_back(std::move(w));
            }
            const Decision& d = planner->tick(seen, now);
            RC_ASSERT(finite(d));
            for (const RoleDecision& r : d.roles) {
                RC_ASSERT(r.target <= std::max(64U, r.counts.committed()));
            }
            for (const Action& a : d.actions) {
                if (a.kind == Action::Kind::kStart) {
                    RC_ASSERT(a.count <= 64U);
                } else {
                    RC_ASSERT(!a.worker.empty());
                }
            }
        }
        RC_ASSERT(planner->decisions().size() <= 256U);
    }));
}

TEST(PlannerProperty, ASpikeOfAHundredTimesIsFollowedAndForgotten) {
    EXPECT_TRUE(rc::check([] {
        World w(options());
        const double rate = *rc::gen::inRange(1, 20);
        for (int i = 0; i < 60; ++i) w.tick(rate);
        const std::size_t before = w.ready();
        for (int i = 0; i < 3; ++i) w.tick(100 * rate);
        for (int i = 0; i < 150; ++i) w.tick(rate);
        RC_ASSERT(w.ready() <= before + 2);
        RC_ASSERT(w.workers.size() <= 64U);
        RC_ASSERT(w.planner->totals().direction_changes <= 4U);
    }));
}

}  // namespace
}  // namespace stator::planner
