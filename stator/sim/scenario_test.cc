#include "stator/sim/scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::sim {
namespace {

using ::testing::HasSubstr;

tl::expected<Scenario, config::Problems> read(std::string_view text) {
    auto tree = config::read_yaml_tree("s.yaml", text);
    if (!tree) return tl::unexpected(tree.error());
    return read_scenario(*tree, "s.yaml");
}

std::string first_problem(std::string_view text) {
    const auto s = read(text);
    return s ? "" : s.error().front().text();
}

constexpr std::string_view kWhole = R"(
name: two kinds
fleet:
  - {name: big, workers: 2, preset: llama-3.3-70b-fp8-2xh100, max_running: 8, speed: 0.5}
  - name: small
    workers: 3
    step_time: {form: linear, base_ms: 3}
    blocks: 100
    block_tokens: 32
    host: {blocks: 50, read_gb_per_s: 20}
    noise: 0.1
router: {policy: round-robin, request_delay: 2ms, max_moves: 1}
planner: {start_up: 10s, schedule: [{at: 1m, group: small, workers: 5}]}
workload: {kind: fixed, rate: 3, requests: 10, isl: 64, osl: 8, think_time: 2s}
slo: {ttft: 300ms, e2e: 4}
faults: worker=1:crash@5s, slow@1s+2s:x3
end_after: 1h
)";

TEST(Scenario, IsRead) {
    const auto s = read(kWhole);
    ASSERT_TRUE(s) << s.error().front().text();
    ASSERT_EQ(s->groups.size(), 2U);
    EXPECT_EQ(s->groups[0].core.max_running, 8U);
    EXPECT_EQ(s->groups[0].core.kv_bytes_per_token, 163'840U);
    EXPECT_EQ(s->groups[0].speed, 0.5);
    EXPECT_EQ(s->groups[1].core.block_tokens, 32U);
    EXPECT_EQ(s->groups[1].core.host.blocks, 50U);
    EXPECT_EQ(s->groups[1].core.step_time.of({}), std::chrono::milliseconds(3));
    EXPECT_EQ(s->router.policy, router::Policy::kRoundRobin);
    EXPECT_EQ(s->request_delay, std::chrono::milliseconds(2));
    ASSERT_EQ(s->resizes.size(), 1U);
    EXPECT_EQ(s->resizes[0].group, 1U);
    EXPECT_EQ(s->resizes[0].at, std::chrono::seconds(60));
    EXPECT_EQ(s->workload.think_s, 2);
    EXPECT_EQ(s->slo.ttft_ms, 300);
    EXPECT_EQ(s->slo.e2e_ms, 4000);
    EXPECT_FALSE(s->slo.itl_ms);
    EXPECT_EQ(s->faults.size(), 2U);
    EXPECT_EQ(s->end_after_s, 3600);
}

TEST(Scenario, FaultsNameWorkersByRoleAndGroup) {
    constexpr std::string_view kFleet = R"(
fleet:
  - {name: p, role: prefill, workers: 2}
  - {name: both, role: prefill+decode, workers: 1}
  - {name: d, role: decode, workers: 3}
workload: {requests: 1}
router: {wait_for_worker: 5s, handoff_lease: 1m}
faults: )";
    const auto s = read(std::string(kFleet) +
                        "prefill=2:crash@1s, decode=2:hang@1s+1s,d=0:crash@2s, "
                        "worker=1:lose-handoffs@1s+1s:0.5, crash@9s");
    ASSERT_TRUE(s) << s.error().front().text();
    std::vector<std::optional<std::uint32_t>> workers;
    for (const auto& fault : s->faults) workers.push_back(fault.worker);
    EXPECT_EQ(workers, (std::vector<std::optional<std::uint32_t>>{2, 4, 3, 1, std::nullopt}));
    EXPECT_EQ(s->wait_for_worker, std::chrono::seconds(5));
    EXPECT_EQ(s->handoff_lease, std::chrono::minutes(1));
    const auto wrong = [&](std::string_view faults) {
        return first_problem(std::string(kFleet) + std::string(faults));
    };
    EXPECT_THAT(wrong("d=3:crash@1s"), HasSubstr("is for number 3 of 3 d workers"));
    EXPECT_THAT(wrong("encode=0:crash@1s"), HasSubstr("is for number 0 of 0 encode workers"));
    EXPECT_THAT(wrong("cook=0:crash@1s"), HasSubstr("names neither a role nor a group"));
    EXPECT_THAT(wrong("d=x:crash@1s"), HasSubstr("needs a number after d="));
    EXPECT_THAT(wrong("\"d=0:\""), HasSubstr("is none of"));
    EXPECT_THAT(wrong("d=0:crash@1s,"), HasSubstr("the fault \"\" is none of"));
}

TEST(Scenario, SaysWhatIsWrongAndWhere) {
    const std::string work = "workload: {requests: 1}\n";
    EXPECT_EQ(first_problem(work), "s.yaml:1: fleet is missing: a list of groups of workers.");
    EXPECT_EQ(first_problem("fleet: {}\n"),
              "s.yaml:1: workload is missing: kind, rate, isl, osl and so on.");
    EXPECT_EQ(first_problem("fleet: {preset: 70b}\n" + work),
              "s.yaml:1: there is no preset \"70b\"; there are constant-10ms, "
              "llama-3.1-8b-fp8-h100, llama-3.3-70b-fp8-2xh100.");
    EXPECT_EQ(first_problem("fleet: {workers: many}\n" + work),
              "s.yaml:1: workers in a group of the fleet is \"many\"; it must be a whole number "
              "from 0 to 1000000.");
    EXPECT_EQ(first_problem("fleet: {}\nworkload: {requests: 1, isll: 3}\n"),
              "s.yaml:2: there is no option \"isll\" of a workload. Did you mean isl?");
    EXPECT_THAT(first_problem("fleet: {role: prefill}\n" + work),
                HasSubstr("Prefill and decode workers need each other"));
    EXPECT_THAT(first_problem("fleet: {role: encode}\n" + work), HasSubstr("Nobody can answer"));
    EXPECT_THAT(first_problem("fleet: {role: chef}\n" + work), HasSubstr("role is \"chef\""));
    EXPECT_THAT(first_problem("fleet: {}\nrouter: {policy: best}\n" + work),
                HasSubstr("policy is \"best\"; it must be one of expected-ttft, dynamo, "));
    EXPECT_THAT(first_problem("fleet: {}\nrouter: {policy: direct}\n" + work),
                HasSubstr("policy direct needs requests that name their worker"));
    EXPECT_THAT(first_problem("fleet: {}\nrouter: {work_weight: -1}\n" + work),
                HasSubstr("work_weight"));
    EXPECT_THAT(first_problem("fleet: {}\nrouter: {sessions: firm}\n" + work),
                HasSubstr("sessions is \"firm\"; it must be none, soft or hard"));
    EXPECT_THAT(first_problem("fleet: {}\nrouter: {queue: {hold: -1s}}\n" + work),
                HasSubstr("hold"));
    EXPECT_THAT(first_problem("fleet: {}\nfaults: explode@3s\n" + work), HasSubstr("explode"));
    EXPECT_THAT(first_problem("fleet: {}\nflet: 1\n" + work), HasSubstr("nothing called \"flet\""));
    EXPECT_THAT(first_problem("fleet: {workers: 0}\n" + work), HasSubstr("no workers"));
}

TEST(Scenario, RefusesPromptsThatNoCacheHolds) {
    EXPECT_EQ(first_problem("fleet: {blocks: 10}\nworkload: {requests: 1, isl: 200}\n"),
              "s.yaml:1: A prompt of 200 tokens and its output do not fit the 10 blocks of 16 "
              "tokens of group workers.");
    EXPECT_THAT(first_problem("fleet: {context_tokens: 100}\nworkload: {requests: 1, isl: 99}\n"),
                HasSubstr("context of 100 tokens"));
}

TEST(Scenario, ValuesCanBeSetByTheirPlace) {
    auto tree = config::read_yaml_tree("s.yaml", kWhole);
    ASSERT_TRUE(tree);
    EXPECT_TRUE(set_value(*tree, "fleet.small.workers", "7"));
    EXPECT_TRUE(set_value(*tree, "fleet.0.max_running", "9"));
    EXPECT_TRUE(set_value(*tree, "router.policy", "random"));
    EXPECT_TRUE(set_value(*tree, "slo.itl", "20ms"));
    const auto s = read_scenario(*tree, "s.yaml");
    ASSERT_TRUE(s);
    EXPECT_EQ(s->groups[1].workers, 7U);
    EXPECT_EQ(s->groups[0].core.max_running, 9U);
    EXPECT_EQ(s->router.policy, router::Policy::kRandom);
    EXPECT_EQ(s->slo.itl_ms, 20);
    EXPECT_EQ(set_value(*tree, "fleet.huge.workers", "7").error().message,
              "there is no \"fleet.huge.workers\" in the scenario, at \"huge\"");
    EXPECT_FALSE(set_value(*tree, "name.first", "7"));
    EXPECT_FALSE(set_value(*tree, "fleet..workers", "7"));
}

}  // namespace
}  // namespace stator::sim
