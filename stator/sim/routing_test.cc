#include "stator/sim/routing.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "stator/config/yaml_tree.h"
#include "stator/report/render.h"
#include "stator/sim/fleet_sim.h"
#include "stator/sim/prior.h"

namespace stator::sim {
namespace {

using report::Outcome;
using report::Report;

Report run(const std::string& text, std::uint64_t seed = 1) {
    auto tree = config::read_yaml_tree("s.yaml", text);
    EXPECT_TRUE(tree) << tree.error().front().text();
    auto scenario = read_scenario(*tree, "s.yaml");
    EXPECT_TRUE(scenario) << scenario.error().front().text();
    auto workload = workload::make_workload(scenario->workload, {}, seed);
    EXPECT_TRUE(workload) << workload.error().message;
    RunOptions options;
    options.seed = seed;
    return run_scenario(*scenario, **workload, options);
}

/// Of the predicted TTFT, in percent.
double median_error(const Report& r) {
    for (const report::Fact& f : r.facts) {
        double error = 0;
        if (f.key == "predicted TTFT" &&
            std::sscanf(f.value.c_str(), "median error %lf", &error) == 1) {
            return error;
        }
    }
    return 1e9;
}

constexpr const char* kShared = R"(
fleet: {workers: 4, speed_noise: 0.1, blocks: 3000,
        step_time: {form: linear, base_ms: 10, prefill_token_us: 50}}
workload: {kind: shared-prefix, rate: 12, requests: 1500, groups: 40, isl: 4000, prefix: 3500, osl: 50}
router: {policy: )";

TEST(Routing, TheSecondsPolicyFindsPrefixesAndPredictsWell) {
    const Report ours = run(std::string(kShared) + "expected-ttft}");
    const Report least = run(std::string(kShared) + "least-loaded}");
    EXPECT_EQ(ours.count(Outcome::kOk), 1500U);
    EXPECT_GT(ours.cached_tokens, 1.5 * static_cast<double>(least.cached_tokens));
    EXPECT_LT(ours.ttft.mean, 0.7 * least.ttft.mean);
    EXPECT_LT(median_error(ours), 15);
}

TEST(Routing, PredictionsSurviveDelaysAndRareReports) {
    const Report r = run(std::string(kShared) +
                         "expected-ttft, request_delay: 2ms, response_delay: 3ms, "
                         "report_every: 50ms}");
    EXPECT_EQ(r.count(Outcome::kOk), 1500U);
    EXPECT_LT(median_error(r), 15);
}

TEST(Routing, EveryPolicyServesAndRepeatsToTheByte) {
    for (const router::Policy policy : router::all_policies()) {
        if (policy == router::Policy::kDirect) continue;
        const std::string text = R"(
fleet: {workers: 3, preset: llama-3.1-8b-fp8-h100, noise: 0.1, speed_noise: 0.1, blocks: 400}
workload: {kind: chat, rate: 20, requests: 300, turns: 4, isl: 50, osl: 30, system: 200, think_time: 1s}
router: {request_delay: 1ms, response_delay: 1ms, policy: )" +
                                 std::string(to_string(policy)) + "}\n";
        const Report r = run(text, 7);
        EXPECT_EQ(r.count(Outcome::kOk), 300U) << to_string(policy);
        EXPECT_EQ(report::to_json(r), report::to_json(run(text, 7))) << to_string(policy);
    }
}

TEST(Routing, SlowWorkersGetLess) {
    const Report r = run(R"(
fleet:
  - {name: fast, workers: 2, step_time: {form: linear, base_ms: 5, prefill_token_us: 50}}
  - {name: slow, workers: 2, speed: 0.25, step_time: {form: linear, base_ms: 5, prefill_token_us: 50}}
workload: {rate: 8, requests: 1000, isl: 2000, osl: 20}
router: {policy: expected-ttft}
)");
    std::map<std::uint32_t, std::uint64_t> requests;
    for (const report::WorkerRow& row : r.workers.rows) requests[row.worker] = row.requests;
    EXPECT_GT(requests[0] + requests[1], 4 * (requests[2] + requests[3]));
    EXPECT_LT(median_error(r), 15);
}

TEST(Routing, HardSessionsStayOnTheirWorker) {
    const std::string text = R"(
fleet: {workers: 4, preset: llama-3.1-8b-fp8-h100}
workload: {kind: chat, rate: 5, requests: 400, turns: 4, isl: 200, osl: 30, system: 16, think_time: 1s}
router: {policy: random, sessions: )";
    const Report kept = run(text + "hard}");
    const Report spread = run(text + "none}");
    EXPECT_GT(kept.cached_tokens, 2 * spread.cached_tokens);
}

TEST(Routing, PairsAnswerEverythingAndCrashesMoveOn) {
    const Report r = run(R"(
fleet:
  - {name: p, role: prefill, workers: 2, preset: llama-3.1-8b-fp8-h100}
  - {name: d, role: decode, workers: 2, preset: llama-3.1-8b-fp8-h100}
workload: {kind: shared-prefix, requests: 500, rate: 10, isl: 1000, prefix: 500, osl: 40}
router: {policy: expected-ttft, request_delay: 1ms, response_delay: 1ms}
)");
    EXPECT_EQ(r.count(Outcome::kOk), 500U);
    EXPECT_LT(median_error(r), 15);
    const Report crashed = run(R"(
fleet: {workers: 3, preset: llama-3.1-8b-fp8-h100}
workload: {requests: 400, rate: 40, isl: 1000, osl: 40}
router: {policy: expected-ttft, request_delay: 5ms, response_delay: 5ms}
faults: worker=0:crash@2s, worker=2:crash@4s
)");
    EXPECT_EQ(crashed.count(Outcome::kOk), 400U);
    EXPECT_EQ(crashed.output_tokens, 400U * 40);
}

TEST(Routing, DecodeWithoutRoomRefusesBeforePrefill) {
    const Report r = run(R"(
fleet:
  - {name: p, role: prefill, workers: 1, preset: llama-3.1-8b-fp8-h100}
  - {name: d, role: decode, workers: 1, preset: llama-3.1-8b-fp8-h100, blocks: 200}
workload: {requests: 200, rate: 50, isl: 1000, osl: 400}
router: {policy: expected-ttft}
)");
    EXPECT_GT(r.count(Outcome::kRefused), 50U);
    EXPECT_EQ(r.count(Outcome::kRefused) + r.count(Outcome::kOk), 200U);
}

TEST(Routing, WhoWaitsAtTheRouterIsServedOrRefused) {
    const std::string text = R"(
fleet: {workers: 2, step_time: {form: linear, base_ms: 10, prefill_token_us: 100}}
workload: {requests: 300, rate: 30, isl: 1000, isl_cv: 1, osl: 10}
router: {policy: expected-ttft, queue: {hold: 100ms, stretch: 5)";
    const Report all = run(text + "}}");
    EXPECT_EQ(all.count(Outcome::kOk), 300U);
    const Report few = run(text + ", requests: 3}}");
    EXPECT_GT(few.count(Outcome::kRefused), 20U);
    EXPECT_EQ(few.count(Outcome::kRefused) + few.count(Outcome::kOk), 300U);
    EXPECT_LT(few.ttft.mean, all.ttft.mean);
}

/// A fact of the report; empty: there is none.
std::string fact(const Report& r, std::string_view key) {
    for (const report::Fact& f : r.facts) {
        if (f.key == key) return f.value;
    }
    return {};
}

constexpr const char* kSessions = R"(
fleet: {workers: 3, preset: llama-3.1-8b-fp8-h100}
workload: {kind: chat, rate: 6, requests: 2500, turns: 6, isl: 300, osl: 60, system: 320, think_time: 2s}
)";

TEST(Audit, NothingIsNoticedWhereNothingIsWrong) {
    for (const char* extra : {"", "router: {events_delay: 20ms, response_delay: 5ms}\n",
                              "faults: worker=1:drop-events@5s+1m:0.2\n"}) {
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
            EXPECT_EQ(fact(run(std::string(kSessions) + extra, seed), "audit"), "0 alarms")
                << extra;
        }
    }
}

/// Requests that a worker got from its fault's beginning until that was noticed; -1: it was not.
int noticed_after(const Report& r) {
    const std::string text = fact(r, "audit of workers/1");
    int requests = -1;
    double at = 0;
    if (std::sscanf(text.c_str(), "resync at %lf s after %d requests", &at, &requests) != 2) {
        return -1;
    }
    return requests;
}

TEST(Audit, FaultsThatNobodyTellsOfAreNoticedAndForgivenOnceMended) {
    for (const char* fault :
         {"lose-events@10s+20s:0.05", "wrong-template@10s+20s", "changed-hash-seed@10s+20s"}) {
        const std::string text = std::string(kSessions) + "faults: worker=1:" + fault + "\n";
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
            const Report r = run(text, seed);
            const int after = noticed_after(r);
            EXPECT_GT(after, 0) << fault;
            EXPECT_LE(after, 200) << fault;
            const std::string all = fact(r, "audit of workers/1");
            EXPECT_GT(all.rfind("trusted at"), all.rfind("distrusted at") + 3) << all;
            EXPECT_EQ(fact(r, "audit of workers/0"), "") << fault;
            EXPECT_EQ(report::to_json(r), report::to_json(run(text, seed)));
        }
    }
}

TEST(Audit, EventsThatComeLateCostCacheHits) {
    const std::string text = std::string(kShared) + "expected-ttft, events_delay: ";
    const Report at_once = run(text + "0}");
    const Report late = run(text + "20s}");
    EXPECT_LT(late.cached_tokens, at_once.cached_tokens);
    EXPECT_EQ(late.count(Outcome::kOk), 1500U);
}

TEST(Prior, SaysWhatTheStepTimeSays) {
    engine::mock::CoreOptions o;
    o.step_tokens = 1000;
    o.step_time = engine::mock::StepTime(engine::mock::LinearTime{10, 100, 1, 50, 20});
    const estimate::PrefillTime p = prefill_prior(o);
    // Three steps of 1,000 tokens, each with its base, over 5,000 tokens that are there.
    EXPECT_NEAR(p.seconds(3000, 5000), 3 * 0.01 + 0.3 + 1e-9 * 3000 * 6500, 0.012);
    const estimate::DecodeStepTime s = step_prior(o);
    EXPECT_NEAR(s.seconds(10, 50'000), 0.01 + 10 * 50e-6 + 50'000 * 20e-9, 1e-6);
}

}  // namespace
}  // namespace stator::sim
