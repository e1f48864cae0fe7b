#include "stator/engine/llama/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "stator/engine/llama/scheduler_fixture.h"

namespace stator::engine::llama {
namespace {

using protocol::FinishReason;

TEST(Scheduler, OneRequestRunsToItsEnd) {
    Bench b(small());
    const auto prompt = counting(11);
    ASSERT_TRUE(b.scheduler.add(request(1, prompt, 5)));
    b.run();
    EXPECT_EQ(b.outputs[1], FakeKv::oracle(prompt, 5));
    EXPECT_EQ(b.finished[1], FinishReason::kLength);
    EXPECT_EQ(b.cached[1], 0U);
}

TEST(Scheduler, PromptsAreCutIntoChunksWithinTheBudgetAndDecodesGoFirst) {
    Bench b(small());
    ASSERT_TRUE(b.scheduler.add(request(1, counting(3), 20)));
    EXPECT_EQ(b.step().batch.size(), 3U);
    ASSERT_TRUE(b.scheduler.add(request(2, counting(20, 500), 2)));
    const StepPlan mixed = b.step();
    ASSERT_EQ(mixed.batch.size(), 8U);
    EXPECT_EQ(mixed.decode_tokens, 1U);
    EXPECT_EQ(mixed.prefill_tokens, 7U);
    EXPECT_TRUE(mixed.batch[0].output);
    EXPECT_FALSE(mixed.batch[7].output);
    b.run();
    EXPECT_EQ(b.outputs[2], FakeKv::oracle(counting(20, 500), 2));
}

TEST(Scheduler, SecondTurnReusesWholeBlocksOfTheFirst) {
    Bench b(small());
    auto prompt = counting(13);
    ASSERT_TRUE(b.scheduler.add(request(1, prompt, 6)));
    b.run();
    // KV is there for the prompt and all output but the last token: 18 positions, 4 whole blocks.
    prompt.insert(prompt.end(), b.outputs[1].begin(), b.outputs[1].end());
    prompt.insert(prompt.end(), {7, 8, 9});
    ASSERT_TRUE(b.scheduler.add(request(2, prompt, 4)));
    b.run();
    EXPECT_EQ(b.cached[2], 16U);
    EXPECT_EQ(b.outputs[2], FakeKv::oracle(prompt, 4));
}

TEST(Scheduler, APromptThatIsWhollyCachedStillComputesItsLastToken) {
    Bench b(small());
    const auto prompt = counting(16);
    ASSERT_TRUE(b.scheduler.add(request(1, prompt, 1)));
    b.run();
    ASSERT_TRUE(b.scheduler.add(request(2, prompt, 3)));
    b.run();
    EXPECT_EQ(b.cached[2], 12U);
    EXPECT_EQ(b.outputs[2], FakeKv::oracle(prompt, 3));
}

TEST(Scheduler, SiblingsWaitForTheFirstInsteadOfComputingItsPromptAgain) {
    Bench b(small());
    const auto prompt = counting(21);
    for (std::uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(b.scheduler.add(request(id, prompt, 3)));
    std::uint32_t prefill = 0;
    while (!b.scheduler.idle()) prefill += b.step().prefill_tokens;
    EXPECT_EQ(prefill, 21U + 1U + 1U);
    EXPECT_EQ(b.cached[2], 20U);
    EXPECT_EQ(b.cached[3], 20U);
    for (std::uint64_t id = 1; id <= 3; ++id) EXPECT_EQ(b.outputs[id], FakeKv::oracle(prompt, 3));
}

TEST(Scheduler, OtherSaltsShareNothing) {
    Bench b(small());
    const auto prompt = counting(17);
    ASSERT_TRUE(b.scheduler.add(request(1, prompt, 1)));
    b.run();
    auto salted = request(2, prompt, 1);
    salted.cache_salt = 42;
    ASSERT_TRUE(b.scheduler.add(std::move(salted)));
    b.run();
    EXPECT_EQ(b.cached[2], 0U);
}

TEST(Scheduler, ParkedPrefixesAreBoundedAndTakeNoCells) {
    Bench b(small());
    for (std::uint64_t id = 1; id <= 6; ++id) {
        ASSERT_TRUE(b.scheduler.add(request(id, counting(30, static_cast<TokenId>(id * 1000)), 2)));
        b.run();
    }
    EXPECT_EQ(b.scheduler.preemptions(), 0U);
    EXPECT_EQ(b.scheduler.load().kv_used_tokens, 0U);
    EXPECT_EQ(b.scheduler.load().kv_cached_tokens, 28U * 2)
        << "two prefixes of 7 whole blocks fit 64 tokens";
    b.kv.apply(b.scheduler.plan().ops);
    EXPECT_EQ(b.kv.segments(), 2U);
}

TEST(Scheduler, PreemptsTheYoungestAndItsOutputStaysExact) {
    auto options = small();
    options.kv_tokens = 48;
    Bench b(options);
    std::map<std::uint64_t, std::vector<TokenId>> prompts;
    for (std::uint64_t id = 1; id <= 3; ++id) {
        prompts[id] = counting(8, static_cast<TokenId>(id * 1000));
        ASSERT_TRUE(b.scheduler.add(request(id, prompts[id], 30)));
    }
    b.run();
    EXPECT_GT(b.scheduler.preemptions(), 0U);
    for (const auto& [id, prompt] : prompts)
        EXPECT_EQ(b.outputs[id], FakeKv::oracle(prompt, 30)) << id;
}

TEST(Scheduler, CancelsRunningAndWaiting) {
    auto options = small();
    options.max_running = 1;
    Bench b(options);
    ASSERT_TRUE(b.scheduler.add(request(1, counting(9), 30)));
    ASSERT_TRUE(b.scheduler.add(request(2, counting(9, 50), 3)));
    b.step();
    b.step();
    EXPECT_TRUE(b.scheduler.cancel(RequestId(1)));
    EXPECT_FALSE(b.scheduler.cancel(RequestId(1)));
    EXPECT_TRUE(b.scheduler.cancel(RequestId(2)));
    EXPECT_TRUE(b.scheduler.idle());
    ASSERT_TRUE(b.scheduler.add(request(3, counting(9), 1)));
    b.run();
    EXPECT_EQ(b.cached[3], 8U) << "a cancelled request's blocks stay of use";
}

TEST(Scheduler, StopTokensEndAGenerationButNotBeforeMinTokens) {
    Bench b(small());
    const auto prompt = counting(5);
    const auto expected = FakeKv::oracle(prompt, 40);
    auto r = request(1, prompt, 40);
    r.stop_token_ids = {expected[0]};
    r.min_tokens = 2;
    ASSERT_TRUE(b.scheduler.add(std::move(r)));
    b.run();
    EXPECT_EQ(b.finished[1], FinishReason::kStop);
    EXPECT_GE(b.outputs[1].size(), 2U);
    EXPECT_EQ(b.outputs[1].back(), expected[0]);
}

TEST(Scheduler, ARunCutAnywhereGoesOnAndItsUsageIsThatOfThePrompt) {
    const auto prompt = counting(9);
    const auto expected = FakeKv::oracle(prompt, 12);
    for (std::uint32_t cut = 1; cut < 12; ++cut) {
        Bench b(small());
        auto r = request(1, prompt, 12 - cut);
        r.prompt.insert(r.prompt.end(), expected.begin(), expected.begin() + cut);
        r.resumed_tokens = cut;
        ASSERT_TRUE(b.scheduler.add(r));
        r.id = RequestId(2);
        ASSERT_TRUE(b.scheduler.add(r));
        b.run();
        const std::vector<TokenId> rest(expected.begin() + cut, expected.end());
        EXPECT_EQ(b.outputs[1], rest) << cut;
        EXPECT_EQ(b.outputs[2], rest) << cut;
        EXPECT_EQ(b.prompt_tokens[1], 9U);
        EXPECT_GE(b.cached[2], 8U);
        EXPECT_LE(b.cached[2], 9U) << "resumed tokens are no part of the prompt's usage";
    }
    Scheduler s(small());
    auto r = request(3, prompt, 1);
    r.resumed_tokens = 9;
    EXPECT_EQ(s.add(r).error().param, "resumed_tokens");
}

TEST(Scheduler, RefusesWhatCanNeverFitAndAFullQueue) {
    auto options = small();
    options.max_waiting = 1;
    Scheduler s(options);
    const auto too_long = s.add(request(1, counting(40), 9));
    ASSERT_FALSE(too_long);
    EXPECT_EQ(too_long.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(too_long.error().message, testing::HasSubstr("48"));
    EXPECT_FALSE(s.add(request(2, {}, 1)));
    EXPECT_FALSE(s.add(request(3, counting(3), 0)));
    std::uint64_t id = 10;
    Result<void> last;
    while ((last = s.add(request(id++, counting(3), 1)))) ASSERT_LT(id, 100U);
    EXPECT_EQ(last.error().code, ErrorCode::kOverloaded);
}

TEST(Scheduler, AFailedStepLosesOnlyItsRequests) {
    auto options = small();
    options.max_running = 2;
    Bench b(options);
    for (std::uint64_t id = 1; id <= 3; ++id) {
        ASSERT_TRUE(b.scheduler.add(request(id, counting(4, static_cast<TokenId>(id * 100)), 3)));
    }
    b.step();
    const StepPlan plan = b.scheduler.plan();
    ASSERT_EQ(plan.outputs.size(), 2U);
    std::vector<RequestId> lost;
    b.scheduler.abandon(lost);
    b.kv.clear();
    EXPECT_EQ(lost.size(), 2U);
    b.outputs.clear();
    b.run();
    EXPECT_EQ(b.outputs[3], FakeKv::oracle(counting(4, 300), 3));
    EXPECT_FALSE(b.finished.contains(1));
}

TEST(Scheduler, DeadlinesAreFound) {
    Scheduler s(small());
    auto r = request(1, counting(3), 1);
    r.deadline = Deadline::at(TimePoint{1000});
    ASSERT_TRUE(s.add(std::move(r)));
    ASSERT_TRUE(s.add(request(2, counting(3), 1)));
    std::vector<RequestId> ids;
    s.expired(TimePoint{999}, ids);
    EXPECT_TRUE(ids.empty());
    s.expired(TimePoint{1000}, ids);
    EXPECT_THAT(ids, testing::ElementsAre(RequestId(1)));
}

// Whatever arrives, is cancelled, shared, evicted or preempted: every output is what its prompt
// alone determines, cells are counted exactly, events replay to what is there.
RC_GTEST_PROP(SchedulerProperty, OutputsCellsAndEventsAreExact, ()) {
    SchedulerOptions options;
    options.block_tokens = *rc::gen::element(1U, 2U, 4U, 5U);
    options.kv_tokens = *rc::gen::inRange(24U, 120U);
    options.max_sequence_tokens = *rc::gen::inRange(20U, options.kv_tokens + 1);
    options.max_running = *rc::gen::inRange(1U, 6U);
    options.step_tokens = options.max_running + *rc::gen::inRange(0U, 12U);
    options.parked_tokens = *rc::gen::inRange(0U, 150U);
    options.prefix_cache = *rc::gen::weightedElement<bool>({{4, true}, {1, false}});
    options.max_waiting = 1000;
    Bench b(options);
    std::map<std::uint64_t, std::pair<std::vector<TokenId>, std::uint32_t>> asked;
    std::set<std::uint64_t> cancelled;

    const auto count = *rc::gen::inRange(1, 25);
    std::vector<std::vector<TokenId>> seen;
    for (int i = 1; i <= count; ++i) {
        std::vector<TokenId> prompt;
        if (!seen.empty() &&
            *rc::gen::inRange(0, 3) > 0) {  // continue, cut or repeat an earlier one
            prompt = *rc::gen::elementOf(seen);
            prompt.resize(*rc::gen::inRange<std::size_t>(1, prompt.size() + 1));
        }
        const auto extra = *rc::gen::inRange(prompt.empty() ? 1 : 0, 14);
        for (int k = 0; k < extra; ++k) prompt.push_back(*rc::gen::inRange<TokenId>(0, 3));
        prompt.resize(std::min<std::size_t>(prompt.size(), options.max_sequence_tokens - 1));
        const auto max_tokens = *rc::gen::inRange<std::uint32_t>(
            1, options.max_sequence_tokens - static_cast<std::uint32_t>(prompt.size()) + 1);
        seen.push_back(prompt);
        const auto id = static_cast<std::uint64_t>(i);
        asked[id] = {prompt, max_tokens};
        RC_ASSERT(b.scheduler.add(request(id, prompt, max_tokens)).has_value());
        const auto steps = *rc::gen::inRange(0, 6);
        for (int k = 0; k < steps && !b.scheduler.idle(); ++k) b.step();
        if (*rc::gen::inRange(0, 8) == 0) {
            const auto victim = *rc::gen::inRange<std::uint64_t>(1, id + 1);
            if (b.scheduler.cancel(RequestId(victim))) cancelled.insert(victim);
        }
    }
    b.run();
    for (const auto& [id, what] : asked) {
        const auto expected = FakeKv::oracle(what.first, what.second);
        if (cancelled.contains(id)) {
            const auto& got = b.outputs[id];
            RC_ASSERT(got.size() <= expected.size());
            RC_ASSERT(std::equal(got.begin(), got.end(), expected.begin()));
        } else {
            RC_ASSERT(b.outputs[id] == expected);
        }
    }
    RC_ASSERT(b.scheduler.load().kv_used_tokens == 0U);
}

}  // namespace
}  // namespace stator::engine::llama
