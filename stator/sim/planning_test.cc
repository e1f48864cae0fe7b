#include "stator/sim/planning.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "stator/report/render.h"
#include "stator/sim/fleet_sim.h"

namespace stator::sim {
namespace {

using report::Outcome;
using report::Report;

constexpr std::string_view kRising = R"(
name: rising
fleet: {step_time: {form: linear, base_ms: 5, prefill_token_us: 50, decode_sequence_us: 100}, workers: 1}
workload: {kind: fixed, rate: 2, rate-end: 60, duration: 600, isl: 500, osl: 20}
slo: {ttft: 1s, itl: 100ms}
planner: {policy: POLICY, start_up: 30s, interval: 5s, predictor: ewma, min: 1, max: 16}
)";

std::string with(std::string text, std::string_view what, std::string_view by) {
    return text.replace(text.find(what), what.size(), by);
}

tl::expected<Scenario, config::Problems> read(const std::string& text) {
    auto tree = config::read_yaml_tree("s.yaml", text);
    EXPECT_TRUE(tree);
    return read_scenario(*tree, "s.yaml");
}

Report run(const std::string& text) {
    const auto s = read(text);
    EXPECT_TRUE(s) << s.error().front().text();
    auto workload = workload::make_workload(s->workload, {}, 1);
    EXPECT_TRUE(workload) << workload.error().message;
    return run_scenario(*s, **workload, {});
}

std::string fact(const Report& r, std::string_view key) {
    const auto at = std::ranges::find(r.facts, key, &report::Fact::key);
    return at == r.facts.end() ? "" : at->value;
}

double last(const Report& r, std::string_view name, std::string_view curve) {
    for (const report::Series& s : r.series) {
        if (s.name == name && s.curve == curve) return s.points.back().value;
    }
    ADD_FAILURE() << name << ": " << curve;
    return 0;
}

TEST(Planning, FollowsARisingLoad) {
    const Report r = run(with(std::string(kRising), "POLICY", "planned"));
    EXPECT_EQ(r.failed(), 0U);
    EXPECT_GT(r.good_share, 0.97);
    // 60 requests/s of 500 · 50 µs + 20 · 100 µs are 1.6 s of work each second.
    EXPECT_GE(last(r, "planner: workers", "ready"), 2);
    EXPECT_GT(std::stod(fact(r, "worker-hours")), 600.0 / 3600);
    EXPECT_LT(std::stod(fact(r, "worker-hours")), 16 * 600.0 / 3600);
}

TEST(Planning, DrainsWithoutLosingARequest) {
    std::string text = with(std::string(kRising), "POLICY", "planned");
    text = with(text, "rate: 2, rate-end: 60", "rate: 60, rate-end: 1");
    text = with(text, "workers: 1", "workers: 8");
    const Report r = run(text);
    EXPECT_EQ(r.failed(), 0U);
    EXPECT_LE(last(r, "planner: workers", "ready"), 3);
    EXPECT_LT(std::stod(fact(r, "worker-hours")), 8 * 600.0 / 3600);
}

TEST(Planning, OneSeedOneReport) {
    const std::string text = with(std::string(kRising), "POLICY", "planned");
    EXPECT_EQ(run(text), run(text));
}

TEST(Planning, StaticWorkersAreThereAllTheTime) {
    std::string text = with(std::string(kRising), "POLICY", "static");
    const Report r = run(with(text, "workers: 1", "workers: 4"));
    EXPECT_NEAR(std::stod(fact(r, "worker-hours")), 4 * r.seconds / 3600, 0.01);
}

TEST(Planning, ReactiveGoesByOne) {
    const Report r = run(with(std::string(kRising), "POLICY", "reactive"));
    EXPECT_TRUE(fact(r, "planner").starts_with("reactive"));
    double before = -1;
    for (const report::Series& s : r.series) {
        if (s.name != "planner: workers" || s.curve != "all") continue;
        for (const report::SeriesPoint& p : s.points) {
            if (before >= 0) EXPECT_LE(std::abs(p.value - before), 2);
            before = p.value;
        }
    }
    EXPECT_GE(before, 1);
}

TEST(Planning, TheReportShowsForecastsAndDecisions) {
    const Report r = run(with(std::string(kRising), "POLICY", "planned"));
    for (const std::string_view curve : {"actual", "forecast", "5 %", "95 %"}) {
        EXPECT_GE(last(r, "requests a second", curve), 0);
    }
    ASSERT_FALSE(r.remarks.empty());
    EXPECT_TRUE(r.remarks.front().text.contains("start"));
    const std::string page = report::to_html(std::span(&r, 1), "t", nullptr);
    EXPECT_TRUE(page.contains("<h2>Decisions</h2>"));
    EXPECT_TRUE(page.contains("requests a second"));
}

TEST(Planning, SaysWhatIsWrong) {
    EXPECT_FALSE(read(with(std::string(kRising), "POLICY", "clever")));
    EXPECT_FALSE(read(with(with(std::string(kRising), "POLICY", "planned"), "ewma", "tea")));
    EXPECT_FALSE(read(with(with(std::string(kRising), "POLICY", "planned"), "min: 1", "min: 20")));
    EXPECT_FALSE(read(with(with(std::string(kRising), "POLICY", "planned"), "min: 1",
                           "schedule: [{at: 1s, workers: 2}]")));
}

}  // namespace
}  // namespace stator::sim
