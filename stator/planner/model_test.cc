#include <gtest/gtest.h>

#include "stator/planner/margin.h"
#include "stator/planner/profile.h"
#include "stator/planner/queue_model.h"
#include "stator/planner/step_cost_model.h"

namespace stator::planner {
namespace {

TEST(Profile, RoundTrip) {
    Profile p;
    p.engine = "mock";
    p.source = "a test";
    RoleProfile r;
    r.cost = {0.004, 1.6e-5, 4e-5, 0.01};
    r.step_tokens = 8192;
    r.kv_tokens = 912'000;
    p.roles[Role::kDecode] = r;
    const auto read = read_profile(write_profile(p));
    ASSERT_TRUE(read);
    EXPECT_EQ(*read, p);
}

TEST(Profile, SaysWhatIsWrong) {
    EXPECT_FALSE(read_profile("{}"));
    const auto bad =
        read_profile(R"({"schema":"stator-profile/1","roles":{"decode":{"base_s":-1}}})");
    ASSERT_FALSE(bad);
    EXPECT_TRUE(bad.error().message.contains("roles.decode.base_s"));
    EXPECT_FALSE(read_profile(R"({"schema":"stator-profile/1","roles":{"cook":{}}})"));
}

TEST(StepCostModel, FindsTheFactors) {
    StepCostModel m;
    EXPECT_FALSE(m.known());
    for (int i = 0; i < 50; ++i) {
        const double steps = 400 + i % 7 * 30;
        const double prefill = 90'000 + i % 5 * 20'000;
        const double decode = 4000 + i % 3 * 3000;
        m.fade();
        m.observe(steps, prefill, decode, 0.01 * steps + 2e-5 * prefill + 3e-4 * decode);
    }
    EXPECT_NEAR(m.cost().base_s, 0.01, 1e-4);
    EXPECT_NEAR(m.cost().prefill_token_s, 2e-5, 1e-6);
    EXPECT_NEAR(m.cost().decode_token_s, 3e-4, 1e-5);
}

TEST(StepCostModel, NeverNegative) {
    StepCostModel m;
    // More tokens, less time: nothing that the model can say.
    m.observe(100, 1000, 100, 5);
    m.observe(100, 9000, 100, 1);
    EXPECT_GE(m.cost().base_s, 0);
    EXPECT_GE(m.cost().prefill_token_s, 0);
    EXPECT_GE(m.cost().decode_token_s, 0);
}

RoleLoad load_of(double rate) {
    RoleLoad l;
    l.requests = rate;
    l.prefill_tokens = 1000 * rate;
    l.decode_tokens = 100 * rate;
    l.prompt = 1000;
    l.context = 1050;
    return l;
}

TEST(QueueModel, ClosedForm) {
    const StepCost c{0.01, 2e-5, 2e-4, 0};
    // 10 requests/s on one worker: 0.2 of prompts, 0.2 of decoding; a step is 10 ms / 0.6.
    const Expected e = expect(Role::kAggregated, c, 2048, load_of(10), 1, {});
    EXPECT_NEAR(e.itl_s, 0.01 / 0.6, 1e-9);
    EXPECT_NEAR(e.sequences, 1000 * 0.01 / 0.6, 1e-6);
    EXPECT_EQ(expect(Role::kAggregated, c, 2048, load_of(30), 1, {}).ttft_miss, 1);
}

TEST(QueueModel, MoreWorkersNeverHurt) {
    const StepCost c{0.01, 2e-5, 2e-4, 0};
    double last = 1;
    for (std::uint32_t n = 1; n < 40; ++n) {
        const Expected e = expect(Role::kAggregated, c, 2048, load_of(100), n, {});
        EXPECT_LE(e.ttft_miss, last);
        last = e.ttft_miss;
    }
    std::uint32_t before = 0;
    for (double rate = 1; rate < 300; rate *= 1.3) {
        const Need n = need(Role::kAggregated, {}, c, load_of(rate), 1000, {});
        EXPECT_TRUE(n.reachable);
        EXPECT_GE(n.workers, before);
        EXPECT_GE(n.workers, rate * 0.04);
        before = n.workers;
    }
}

TEST(QueueModel, DecodeKeepsTheTimeBetweenTokensAndTheMemory) {
    const StepCost c{0.02, 0, 1e-3, 0};
    SloTarget slo;
    slo.itl_s = 0.04;
    // 0.02 / (1 - x) = 0.04: half of the time may be taken; 30 of 10 · 100 tokens.
    EXPECT_EQ(need(Role::kDecode, {}, c, load_of(30), 1000, slo).workers, 6U);
    RoleProfile small;
    small.kv_tokens = 10'000;
    const Need n = need(Role::kDecode, small, c, load_of(30), 1000, slo);
    EXPECT_GT(n.workers, 6U);
    EXPECT_LE(n.expected.kv_tokens, 9000);
}

TEST(QueueModel, WhatCannotBeReachedIsSaid) {
    const StepCost c{0.1, 2e-5, 2e-4, 0};
    const Need n = need(Role::kAggregated, {}, c, load_of(30), 1000, {});
    EXPECT_FALSE(n.reachable);
    EXPECT_LT(n.workers, 100U);
}

TEST(Margin, GrowsWithMissesShrinksWithout) {
    Margin m(0.1, 0.7, 3);
    for (int i = 0; i < 100; ++i) m.observe(100, 100, 0.99);
    EXPECT_LT(m.value(), 1);
    for (int i = 0; i < 5; ++i) m.observe(100, 50, 0.99);
    EXPECT_GT(m.value(), 1.1);
    for (int i = 0; i < 1000; ++i) m.observe(100, 0, 0.99);
    EXPECT_NEAR(m.value(), 3, 1e-9);
}

}  // namespace
}  // namespace stator::planner
