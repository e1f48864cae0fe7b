#include "stator/sim/fleet_sim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/report/render.h"
#include "stator/sim/prompt_builder.h"
#include "stator/sim/sessions.h"
#include "stator/sim/sweep.h"
#include "stator/tokens/token_sequence.h"
#include "stator/workload/content.h"

namespace stator::sim {
namespace {

using report::Outcome;
using report::Report;

Scenario scenario(std::string_view text) {
    auto tree = config::read_yaml_tree("s.yaml", text);
    EXPECT_TRUE(tree) << tree.error().front().text();
    auto read = read_scenario(*tree, "s.yaml");
    EXPECT_TRUE(read) << read.error().front().text();
    return std::move(*read);
}

Report run(const Scenario& s, std::uint64_t seed = 1, std::string_view trace = {}) {
    auto workload = workload::make_workload(s.workload, trace, seed);
    EXPECT_TRUE(workload) << workload.error().message;
    RunOptions options;
    options.seed = seed;
    return run_scenario(s, **workload, options);
}

Report run(std::string_view text, std::uint64_t seed = 1) { return run(scenario(text), seed); }

TEST(FleetSim, OneRequestTakesWhatItsStepsTake) {
    const Report r = run(R"(
fleet: {step_time: {form: linear, base_ms: 10, prefill_token_us: 100}}
router: {request_delay: 3ms, response_delay: 2ms}
workload: {requests: 1, arrivals: constant, isl: 200, osl: 5}
)");
    EXPECT_EQ(r.count(Outcome::kOk), 1U);
    EXPECT_NEAR(r.ttft.mean, 3 + 10 + 20 + 2, 1e-6);
    EXPECT_NEAR(r.itl.mean, 10, 1e-4);
    EXPECT_NEAR(r.e2e.mean, 35 + 40, 1e-4);
    EXPECT_EQ(r.input_tokens, 200U);
    EXPECT_EQ(r.output_tokens, 5U);
}

TEST(FleetSim, SpeedMakesStepsShorter) {
    const Report r = run(R"(
fleet: {step_time: {form: constant, step_ms: 10}, speed: 4}
workload: {requests: 1, isl: 20, osl: 5}
)");
    EXPECT_NEAR(r.ttft.mean, 2.5, 1e-6);
    EXPECT_NEAR(r.itl.mean, 2.5, 1e-4);
}

constexpr std::string_view kChats = R"(
fleet:
  - {workers: 3, preset: llama-3.1-8b-fp8-h100, noise: 0.1}
workload: {kind: chat, rate: 20, requests: 400, turns: 4, isl: 50, osl: 30, system: 200, think_time: 1s}
router: {policy: random}
)";

TEST(FleetSim, OneSeedOneReportToTheByte) {
    EXPECT_EQ(report::to_json(run(kChats, 7)), report::to_json(run(kChats, 7)));
    EXPECT_NE(report::to_json(run(kChats, 7)), report::to_json(run(kChats, 8)));
}

TEST(FleetSim, ChatTurnsFindTheirHistoryOnOneWorker) {
    const Report r = run(R"(
fleet: {workers: 1, preset: llama-3.1-8b-fp8-h100, block_tokens: 1}
workload: {kind: chat, arrivals: constant, rate: 0.01, requests: 4, turns: 4, isl: 50, osl: 30,
           system: 200, think_time: 1s}
)");
    // Each turn finds all before it but the last answer's last token, whose KV was never needed.
    EXPECT_EQ(r.input_tokens, 250U + 330 + 410 + 490);
    EXPECT_EQ(r.cached_tokens, 0U + 279 + 359 + 439);
}

TEST(FleetSim, FullWorkersRefuse) {
    const Report r = run(R"(
fleet: {workers: 2, max_running: 1, max_waiting: 1}
workload: {requests: 10, arrivals: constant, rate: 100000, isl: 20, osl: 5}
)");
    EXPECT_EQ(r.count(Outcome::kOk), 4U);
    EXPECT_EQ(r.count(Outcome::kRefused), 6U);
    EXPECT_EQ(r.reasons.front().reason, "every worker is full");
}

TEST(FleetSim, PromptsThatDoNotFitAreRefusedAsTheyWouldBe) {
    const Scenario s = scenario(R"(
fleet: {workers: 2, blocks: 64}
workload: {kind: azure, trace: x}
)");
    const Report r = run(s, 1, "2023-11-16 18:17:03,100,10\n2023-11-16 18:17:04,2000,10\n");
    EXPECT_EQ(r.count(Outcome::kOk), 1U);
    EXPECT_EQ(r.count(Outcome::kHttpError), 1U);
    EXPECT_EQ(r.reasons.front().reason, "http 400: does not fit the cache or context");
}

TEST(FleetSim, ClosedLoopKeepsTheNumberAtATime) {
    const Report r = run(R"(
fleet: {workers: 1, step_time: {form: constant, step_ms: 10}}
workload: {arrivals: closed, concurrency: 5, requests: 100, isl: 20, osl: 10}
)");
    EXPECT_EQ(r.count(Outcome::kOk), 100U);
    // Who follows comes when the next step has begun, and waits for its end: eleven steps each.
    EXPECT_NEAR(r.seconds, 100 / 5 * 0.11, 0.02);
    EXPECT_NEAR(r.mean_in_flight, 5, 0.1);
}

TEST(FleetSim, LostWorkersRequestsGoOnElsewhere) {
    const Report r = run(R"(
fleet: {workers: 3, step_time: {form: constant, step_ms: 10}}
workload: {requests: 300, rate: 100, isl: 20, osl: 50}
faults: worker=0:crash@1s, worker=2:crash@2s
)");
    EXPECT_EQ(r.count(Outcome::kOk), 300U);
    EXPECT_EQ(r.output_tokens, 300U * 50);
    EXPECT_THAT(r.facts,
                testing::Contains(testing::Field(&report::Fact::key, "moved to another worker")));
    ASSERT_EQ(r.series.size(), 1U);
    EXPECT_EQ(r.series[0].points.back().value, 1);
}

TEST(FleetSim, NobodyLeftEndsWithErrors) {
    const Report r = run(R"(
fleet: {workers: 1, step_time: {form: constant, step_ms: 10}}
workload: {requests: 100, arrivals: constant, rate: 100, isl: 20, osl: 50}
faults: crash@500ms
)");
    EXPECT_GT(r.count(Outcome::kServerError), 0U);
    EXPECT_GT(r.count(Outcome::kRefused), 0U);
    EXPECT_EQ(r.requests, 100U);
}

TEST(FleetSim, SlowAndHungWorkersShow) {
    const auto with = [](std::string_view faults) {
        return run(std::string("fleet: {step_time: {form: constant, step_ms: 10}}\n"
                               "workload: {requests: 1, arrivals: constant, rate: 1000, isl: 20, "
                               "osl: 100}\nfaults: ") +
                   std::string(faults));
    };
    const double plain = with("\"\"").e2e.mean;
    EXPECT_NEAR(with("hang@100ms+2s").e2e.mean - plain, 2000, 1);
    EXPECT_NEAR(with("slow@100ms+200ms:x2").e2e.mean - plain, 100, 11);
}

TEST(FleetSim, ScheduleAddsAndRemovesWorkers) {
    const Report r = run(R"(
fleet: {workers: 1, step_time: {form: constant, step_ms: 10}}
planner: {start_up: 1s, schedule: [{at: 2s, workers: 4}, {at: 8s, workers: 1}]}
workload: {requests: 400, arrivals: constant, rate: 40, isl: 20, osl: 20}
)");
    EXPECT_EQ(r.count(Outcome::kOk), 400U);
    ASSERT_EQ(r.series.size(), 1U);
    std::vector<double> values;
    for (const report::SeriesPoint& p : r.series[0].points) values.push_back(p.value);
    EXPECT_EQ(values, (std::vector<double>{1, 1, 2, 3, 4, 1}));
    EXPECT_EQ(r.series[0].points[2].time, 3);
    EXPECT_EQ(r.workers.workers, 4U);
}

TEST(FleetSim, PrefillAndDecodeApartGiveEverything) {
    const Report r = run(R"(
fleet:
  - {name: e, role: encode, workers: 1, step_time: {form: constant, step_ms: 4}}
  - {name: p, role: prefill, workers: 2, step_time: {form: constant, step_ms: 20}}
  - {name: d, role: decode, workers: 2, step_time: {form: constant, step_ms: 10},
     handoff_gb_per_s: 1, kv_bytes_per_token: 100000, handoff_latency: 1ms}
router: {disaggregation: always}
workload: {requests: 1, isl: 101, osl: 5, images: 1, image_size: 280}
)");
    // Encode 4 + 1, prefill 20, handoff 1 + 200 tokens × 0.1 ms, decode 10.
    EXPECT_NEAR(r.ttft.mean, 4 + 1 + 20 + 1 + 20 + 10, 0.01);
    EXPECT_EQ(r.input_tokens, 201U);
    EXPECT_NEAR(r.itl.mean, 10, 1e-4);
    const Report many = run(R"(
fleet:
  - {name: p, role: prefill, workers: 2, blocks: 300, step_time: {form: constant, step_ms: 5}}
  - {name: d, role: decode, workers: 2, blocks: 300, max_running: 4, max_waiting: 2}
router: {disaggregation: always}
workload: {kind: shared-prefix, requests: 500, rate: 80, isl: 300, prefix: 200, osl: 20}
)");
    EXPECT_EQ(many.count(Outcome::kOk) + many.count(Outcome::kRefused), 500U);
    EXPECT_GT(many.count(Outcome::kOk), 100U);
}

TEST(FleetSim, ConditionalSplitsLongPromptsAlone) {
    const std::string text = R"(
fleet:
  - {name: p, role: prefill, workers: 2, preset: llama-3.1-8b-fp8-h100}
  - {name: d, role: decode, workers: 2, preset: llama-3.1-8b-fp8-h100}
workload: {requests: 400, rate: 10, isl: 3000, isl_cv: 1.5, osl: 200}
)";
    const Report r = run(text);
    EXPECT_EQ(r.count(Outcome::kOk), 400U);
    const auto fact = std::ranges::find(r.facts, "disaggregation", &report::Fact::key);
    ASSERT_NE(fact, r.facts.end());
    unsigned split = 0;
    unsigned all = 0;
    ASSERT_EQ(std::sscanf(fact->value.c_str(), "%u of %u", &split, &all), 2) << fact->value;
    EXPECT_EQ(all, 400U);
    EXPECT_GT(split, 40U);
    EXPECT_LT(split, 400U);
    const Report never = run(text + "router: {disaggregation: never}\n");
    EXPECT_EQ(never.count(Outcome::kOk), 400U);
}

TEST(FleetSim, WorkersMayHaveSeveralRoles) {
    const Report r = run(R"(
fleet: {role: aggregated+prefill+decode, workers: 3, preset: llama-3.1-8b-fp8-h100}
workload: {requests: 200, rate: 10, isl: 2000, osl: 100}
)");
    EXPECT_EQ(r.count(Outcome::kOk), 200U);
}

TEST(FleetSim, StoppedRunsKeepWhatTheyHave) {
    const Scenario s = scenario(R"(
fleet: {step_time: {form: constant, step_ms: 10}}
workload: {requests: 1000000, rate: 1000, isl: 20, osl: 20}
)");
    auto workload = workload::make_workload(s.workload, {}, 1);
    RunOptions options;
    int asked = 0;
    options.go_on = [&](const Progress&) { return ++asked < 3; };
    const Report r = run_scenario(s, **workload, options);
    EXPECT_TRUE(r.partial);
    EXPECT_GT(r.count(Outcome::kOk), 0U);
    EXPECT_GT(r.count(Outcome::kUnfinished), 0U);
    Scenario timed = scenario(R"(
fleet: {step_time: {form: constant, step_ms: 10}}
workload: {requests: 1000, rate: 10, isl: 20, osl: 20}
end_after: 5s
)");
    const Report five = run(timed);
    EXPECT_NEAR(five.seconds, 5, 1e-9);
    EXPECT_LT(five.requests, 100U);
}

TEST(PromptBuilder, NamesBlocksAsTokenSequencesDo) {
    workload::RequestSpec spec;
    spec.prompt = {{1, 30, std::nullopt}, {0, 4, 7}, {2, 25, std::nullopt}};
    spec.images = {{9, 56, 56}};
    const std::vector<tokens::TokenId> answer{5, 6, 7};
    PromptBuilder builder(16);
    engine::mock::CoreRequest r;
    EXPECT_TRUE(builder.build(
        spec, {},
        [&](std::uint64_t index) {
            EXPECT_EQ(index, 7U);
            return std::span<const tokens::TokenId>(answer);
        },
        r));
    std::vector<tokens::TokenId> tokens;
    workload::append_tokens(tokens, {9, 4, std::nullopt}, {});
    workload::append_tokens(tokens, spec.prompt[0], {});
    tokens.insert(tokens.end(), answer.begin(), answer.end());
    workload::append_tokens(tokens, spec.prompt[2], {});
    tokens::TokenSequence sequence(16);
    sequence.append(tokens);
    EXPECT_TRUE(std::ranges::equal(r.blocks, sequence.sequence_hashes()));
    EXPECT_EQ(r.tail.size(), tokens.size() % 16);
    ASSERT_EQ(r.images.size(), 1U);
    EXPECT_EQ(r.images[0].tokens, 4U);
}

TEST(Sessions, WaitForAllTheyNeed) {
    Sessions sessions(true);
    workload::RequestSpec a;
    a.index = 0;
    a.session = 3;
    workload::RequestSpec b = a;
    b.index = 1;
    workload::RequestSpec c = a;
    c.index = 2;
    c.after = 1;
    c.prompt = {{0, 5, 0}};
    EXPECT_TRUE(sessions.add(a));
    EXPECT_TRUE(sessions.add(b));
    EXPECT_FALSE(sessions.add(c));
    EXPECT_TRUE(sessions.ended(b, {8}).empty());
    EXPECT_EQ(sessions.ended(a, {9, 9}).size(), 1U);
    EXPECT_EQ(sessions.output(3, 0).size(), 2U);
    EXPECT_EQ(sessions.open(), 1U);
    EXPECT_TRUE(sessions.ended(c, {}).empty());
    EXPECT_EQ(sessions.open(), 0U);
    EXPECT_TRUE(sessions.output(3, 0).empty());
}

TEST(Sweep, TriesEveryCombination) {
    const auto a = parse_axis("router.policy=random,least-loaded");
    const auto b = parse_axis("fleet.workers.workers=2,4,8");
    ASSERT_TRUE(a && b);
    const auto points = all_points({*a, *b});
    ASSERT_TRUE(points);
    ASSERT_EQ(points->size(), 6U);
    EXPECT_EQ(name_of(points->back()), "policy=least-loaded workers=8");
    EXPECT_FALSE(parse_axis("router.policy"));
    EXPECT_FALSE(parse_axis("=3"));
    EXPECT_FALSE(parse_axis("x="));
    Axis wide{"x", std::vector<std::string>(200, "1")};
    EXPECT_FALSE(all_points({wide, wide, wide}));
    std::vector<int> seen(100, 0);
    run_parallel(seen.size(), 3, [&](std::size_t i) { ++seen[i]; });
    EXPECT_EQ(seen, std::vector<int>(100, 1));
}

}  // namespace
}  // namespace stator::sim
