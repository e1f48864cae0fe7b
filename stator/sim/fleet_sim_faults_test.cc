// Workers that die and handoffs that do not arrive: the rules are legs::RequestLife's.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <random>

#include "stator/report/render.h"
#include "stator/sim/fleet_sim.h"

namespace stator::sim {
namespace {

using report::Outcome;
using report::Report;

Report run(const std::string& text, std::uint64_t seed = 1) {
    auto tree = config::read_yaml_tree("s.yaml", text);
    EXPECT_TRUE(tree) << tree.error().front().text();
    auto s = read_scenario(*tree, "s.yaml");
    EXPECT_TRUE(s) << s.error().front().text();
    auto workload = workload::make_workload(s->workload, {}, seed);
    EXPECT_TRUE(workload) << workload.error().message;
    RunOptions options;
    options.seed = seed;
    return run_scenario(*s, **workload, options);
}

std::string fact(const Report& r, std::string_view key) {
    const auto found = std::ranges::find(r.facts, key, &report::Fact::key);
    return found == r.facts.end() ? "" : found->value;
}

struct Again {
    unsigned long prompts = 0;
    unsigned long tokens = 0;
};

Again computed_again(const Report& r) {
    Again a;
    (void)std::sscanf(fact(r, "computed again").c_str(), "%lu prompts, %lu tokens", &a.prompts,
                      &a.tokens);
    return a;
}

struct Handoffs {
    unsigned long lost = 0;
    unsigned long given_up = 0;
};

Handoffs handoffs(const Report& r) {
    Handoffs h;
    (void)std::sscanf(fact(r, "handoffs").c_str(), "%lu did not arrive, %lu were given up", &h.lost,
                      &h.given_up);
    return h;
}

/// All of 300 requests of 400 prompt and 30 output tokens, each prompt another one.
std::string apart(std::string_view faults, std::string_view router = "disaggregation: always") {
    return fmt::format(R"(
fleet:
  - {{name: p, role: prefill, workers: 2,
     step_time: {{form: linear, base_ms: 2, prefill_token_us: 120}}}}
  - {{name: d, role: decode, workers: 2,
     step_time: {{form: linear, base_ms: 5, prefill_token_us: 50}}}}
router: {{{}}}
workload: {{requests: 300, rate: 30, isl: 400, isl_cv: 0, osl: 30, osl_cv: 0}}
faults: {}
)",
                       router, faults);
}

TEST(FleetSimFaults, WithoutAnyNothingIsComputedAgain) {
    const Report r = run(apart("\"\""));
    EXPECT_EQ(r.count(Outcome::kOk), 300U);
    EXPECT_EQ(fact(r, "computed again"), "");
    EXPECT_EQ(fact(r, "handoffs"), "");
    EXPECT_EQ(fact(r, "moved to another worker"), "");
}

TEST(FleetSimFaults, HandoffsThatDoNotArriveAreComputedByWhoDecodes) {
    const Report all = run(apart("lose-handoffs@0s+1h"));
    EXPECT_EQ(all.count(Outcome::kOk), 300U);
    EXPECT_EQ(all.output_tokens, 300U * 30);
    EXPECT_EQ(handoffs(all).lost, 300U);
    EXPECT_EQ(computed_again(all).prompts, 300U);
    EXPECT_EQ(computed_again(all).tokens, 300U * 400);
    EXPECT_EQ(fact(all, "moved to another worker"), "");
    const Report plain = run(apart("\"\""));
    EXPECT_GT(all.ttft.mean, plain.ttft.mean + 20);
    const Report some = run(apart("lose-handoffs@0s+1h:0.2"));
    EXPECT_GT(handoffs(some).lost, 30U);
    EXPECT_LT(handoffs(some).lost, 90U);
    EXPECT_EQ(computed_again(some).prompts, handoffs(some).lost);
    // One decode worker's alone, and for a time.
    const Report one = run(apart("decode=1:lose-handoffs@2s+1s"));
    EXPECT_GT(handoffs(one).lost, 5U);
    EXPECT_LT(handoffs(one).lost, 30U);
}

TEST(FleetSimFaults, APrefillWorkerDies) {
    unsigned moved = 0;
    for (const unsigned ms : {2500, 3000, 3500, 4000, 4500}) {
        const Report r = run(apart(fmt::format("prefill=0:crash@{}ms", ms)));
        EXPECT_EQ(r.count(Outcome::kOk), 300U);
        EXPECT_EQ(r.output_tokens, 300U * 30);
        // Who was there is computed elsewhere.
        moved += fact(r, "moved to another worker").empty() ? 0 : 1;
    }
    EXPECT_GE(moved, 2U);
    const Report both = run(apart("prefill=0:crash@3s, p=1:crash@3s"));
    EXPECT_EQ(both.count(Outcome::kOk), 300U) << "decode workers can do it all";
    EXPECT_EQ(both.output_tokens, 300U * 30);
}

TEST(FleetSimFaults, ADecodeWorkerDies) {
    const Report r = run(apart("decode=0:crash@3s"));
    EXPECT_EQ(r.count(Outcome::kOk), 300U);
    EXPECT_EQ(r.output_tokens, 300U * 30);
    unsigned moved = 0;
    ASSERT_EQ(std::sscanf(fact(r, "moved to another worker").c_str(), "%u requests", &moved), 1);
    EXPECT_GT(moved, 0U);
    EXPECT_GT(computed_again(r).prompts, 0U);
    EXPECT_LE(computed_again(r).prompts, moved);
    // With the tokens they had had.
    EXPECT_GT(computed_again(r).tokens, 400 * computed_again(r).prompts);
}

TEST(FleetSimFaults, OnlySoManyMoves) {
    const Report r = run(apart("decode=0:crash@3s", "disaggregation: always, max_moves: 0"));
    EXPECT_GT(r.count(Outcome::kServerError), 0U);
    EXPECT_EQ(r.count(Outcome::kServerError) + r.count(Outcome::kOk), 300U);
    EXPECT_EQ(r.reasons.front().reason, "its workers were lost");
}

TEST(FleetSimFaults, EncodersDieAndEmbeddingsAreLost) {
    const std::string text = R"(
fleet:
  - {name: e, role: encode, workers: 2, step_time: {form: constant, step_ms: 4}}
  - {name: w, workers: 2, step_time: {form: constant, step_ms: 5}}
workload: {requests: 200, rate: 40, isl: 100, osl: 20, osl_cv: 0, images: 1, image_size: 280}
faults: )";
    const Report died = run(text + "encode=0:crash@2s");
    EXPECT_EQ(died.count(Outcome::kOk), 200U);
    const Report lost = run(text + "lose-handoffs@1s+2s:0.5");
    EXPECT_EQ(lost.count(Outcome::kOk) + lost.count(Outcome::kServerError), 200U);
    EXPECT_GT(lost.count(Outcome::kOk), 180U) << "four times in a row is rare";
    EXPECT_NE(fact(lost, "encoded again"), "");
    const Report both = run(text + "encode=0:crash@2s, encode=1:crash@2s");
    EXPECT_GT(both.count(Outcome::kRefused), 50U);
    EXPECT_GT(both.count(Outcome::kOk), 50U);
    EXPECT_EQ(both.requests, 200U);
}

TEST(FleetSimFaults, HandoffsThatNobodyTakesInTimeAreGivenUp) {
    // Two places to decode, and outputs of a second: the prompts are there long before.
    const Report r = run(R"(
fleet:
  - {name: p, role: prefill, workers: 2, step_time: {form: constant, step_ms: 2}}
  - {name: d, role: decode, workers: 2, max_running: 1, max_waiting: 0,
     step_time: {form: constant, step_ms: 50}}
router: {policy: round-robin, disaggregation: always, wait_for_worker: 300ms}
workload: {requests: 40, rate: 20, arrivals: constant, isl: 100, osl: 20, osl_cv: 0}
)");
    EXPECT_GT(handoffs(r).given_up, 0U);
    EXPECT_EQ(handoffs(r).lost, 0U);
    EXPECT_EQ(r.count(Outcome::kOk) + r.count(Outcome::kRefused) + r.count(Outcome::kServerError),
              40U);
    EXPECT_GT(r.count(Outcome::kOk), 5U);
}

TEST(FleetSimFaults, ARequestThatIsLostOnItsWayIsSentOnce) {
    const Report r = run(R"(
fleet: {workers: 2, step_time: {form: constant, step_ms: 5}}
router: {request_delay: 80ms}
workload: {requests: 200, rate: 100, isl: 40, osl: 20, osl_cv: 0}
faults: worker=1:crash@1s
)");
    EXPECT_EQ(r.count(Outcome::kOk), 200U);
    EXPECT_EQ(r.output_tokens, 200U * 20);
}

TEST(FleetSimFaults, OneSeedOneReport) {
    const std::string text = apart("lose-handoffs@1s+4s:0.3, decode=1:crash@4s", "");
    EXPECT_EQ(report::to_json(run(text, 3)), report::to_json(run(text, 3)));
    EXPECT_NE(report::to_json(run(text, 3)), report::to_json(run(text, 4)));
}

TEST(FleetSimFaults, WhateverHappensEachRequestEndsOnce) {
    std::mt19937_64 random(5);
    const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
    constexpr std::array<std::string_view, 4> kWorkers{"encode=0", "prefill=0", "decode=0",
                                                       "decode=1"};
    for (unsigned i = 0; i < 60; ++i) {
        std::string faults = fmt::format("lose-handoffs@{}ms+2s:0.{}", below(3000), below(10));
        for (unsigned n = below(4); n > 0; --n) {
            const bool hangs = below(3) == 0;
            faults += fmt::format(", {}:{}@{}ms{}", kWorkers[below(4)], hangs ? "hang" : "crash",
                                  below(5000), hangs ? "+1s" : "");
        }
        const std::string text =
            fmt::format(R"(
fleet:
  - {{name: e, role: encode, workers: 1, step_time: {{form: constant, step_ms: 4}}}}
  - {{name: p, role: prefill, workers: 2, blocks: 400, max_waiting: 4,
     step_time: {{form: constant, step_ms: 20}}}}
  - {{name: d, role: decode, workers: 3, blocks: 400, max_running: 8, max_waiting: 4,
     step_time: {{form: constant, step_ms: 8}}}}
router: {{disaggregation: {}, request_delay: {}ms, response_delay: {}ms, max_moves: {}{}}}
workload: {{kind: chat, turns: 3, requests: 120, rate: 20, isl: 80, osl: 25, osl_cv: 0, images: {},
            image_size: 280}}
faults: {}
)",
                        below(2) == 0 ? "always" : "conditional", below(30), below(30), below(4),
                        below(2) == 0 ? "" : ", queue: {hold: 50ms}", below(2), faults);
        SCOPED_TRACE(text);
        const Report r = run(text, i + 1);
        std::uint64_t ended = 0;
        for (const Outcome o :
             {Outcome::kOk, Outcome::kRefused, Outcome::kServerError, Outcome::kHttpError}) {
            ended += r.count(o);
        }
        EXPECT_EQ(ended, 120U);
        EXPECT_GE(r.output_tokens, r.count(Outcome::kOk) * 25);
        EXPECT_LE(r.output_tokens, 120U * 25);
        if (r.count(Outcome::kOk) == 120) EXPECT_EQ(r.output_tokens, 120U * 25);
    }
}

}  // namespace
}  // namespace stator::sim
