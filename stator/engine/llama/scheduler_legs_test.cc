#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <memory>

#include "stator/engine/llama/scheduler_fixture.h"

namespace stator::engine::llama {
namespace {

using protocol::Leg;

/// KV of a prompt but its last token, as FakeKv reads it, in parts of `part_tokens`.
std::shared_ptr<protocol::HandoffBytes> kv_of(const std::vector<TokenId>& prompt,
                                              std::uint32_t part_tokens) {
    auto contents = std::make_shared<std::vector<std::uint64_t>>();
    std::uint64_t c = 0;
    for (std::size_t i = 0; i + 1 < prompt.size(); ++i) {
        contents->push_back(c = FakeKv::content(c, prompt[i]));
    }
    auto what = std::make_shared<protocol::Handoff>();
    auto out = std::make_shared<protocol::HandoffBytes>();
    what->tokens = static_cast<std::uint32_t>(contents->size());
    const auto all = std::as_bytes(std::span(*contents));
    for (std::uint32_t first = 0; first < what->tokens; first += part_tokens) {
        const std::uint32_t n = std::min(part_tokens, what->tokens - first);
        what->parts.push_back({first, n, std::uint64_t{first} * 8, std::uint64_t{n} * 8});
        out->parts.push_back(all.subspan(first * 8UL, n * 8UL));
    }
    out->what = what;
    out->keep = contents;
    return out;
}

protocol::GenerateRequest decode_leg(std::uint64_t id, std::vector<TokenId> prompt,
                                     std::uint32_t max_tokens,
                                     std::shared_ptr<protocol::HandoffBytes> kv) {
    auto r = request(id, std::move(prompt), max_tokens);
    r.leg = Leg::kDecode;
    r.kv = std::move(kv);
    return r;
}

protocol::GenerateRequest prefill_leg(std::uint64_t id, std::vector<TokenId> prompt) {
    auto r = request(id, std::move(prompt), 9);
    r.leg = Leg::kPrefill;
    return r;
}

TEST(SchedulerLegs, APrefillLegComputesAllButTheLastTokenAndLeavesItsBlocksCached) {
    Bench b(small());
    const auto prompt = counting(18);
    ASSERT_TRUE(b.scheduler.add(prefill_leg(1, prompt)));
    std::uint32_t computed = 0;
    while (!b.scheduler.idle()) computed += static_cast<std::uint32_t>(b.step().batch.size());
    EXPECT_EQ(computed, 17U);
    EXPECT_EQ(b.finished[1], FinishReason::kHandoff);
    EXPECT_EQ(b.prompt_tokens[1], 18U);
    EXPECT_TRUE(b.outputs[1].empty());
    EXPECT_EQ(b.handed_over[1].size(), 17U);
    EXPECT_EQ(b.scheduler.cached_blocks(), 4U);
    // Again: nothing but the last, partial block is left to compute.
    ASSERT_TRUE(b.scheduler.add(prefill_leg(2, prompt)));
    b.run();
    EXPECT_EQ(b.cached[2], 16U);
    EXPECT_EQ(b.handed_over[2], b.handed_over[1]);
    // Where the cache has all of it there is nothing at all to compute.
    ASSERT_TRUE(b.scheduler.add(prefill_leg(3, counting(17))));
    EXPECT_TRUE(b.step().batch.empty());
    EXPECT_EQ(b.finished[3], FinishReason::kHandoff);
    EXPECT_EQ(b.handed_over[3].size(), 16U);
    EXPECT_FALSE(b.scheduler.add(prefill_leg(4, counting(1))));
}

TEST(SchedulerLegs, ADecodeLegComputesThePromptsLastTokenAlone) {
    Bench b(small());
    const auto prompt = counting(19);
    const auto kv = kv_of(prompt, 8);
    ASSERT_TRUE(b.scheduler.add(decode_leg(1, prompt, 4, kv)));
    EXPECT_EQ(b.step().batch.size(), 1U);
    EXPECT_EQ(kv.use_count(), 1) << "the bytes are let go of once they are imported";
    b.run();
    EXPECT_EQ(b.imported, 18U);
    EXPECT_EQ(b.cached[1], 0U);
    EXPECT_EQ(b.outputs[1], FakeKv::oracle(prompt, 4));
    // What was imported is cached like what was computed.
    ASSERT_TRUE(b.scheduler.add(request(2, prompt, 2)));
    b.run();
    EXPECT_EQ(b.cached[2], 16U);
}

TEST(SchedulerLegs, PartsThatTheCacheHasNeedNotCome) {
    Bench b(small());
    auto prompt = counting(19);
    ASSERT_TRUE(b.scheduler.add(request(1, counting(13), 1)));
    b.run();
    auto kv = kv_of(prompt, 8);
    kv->parts[0] = {};
    ASSERT_TRUE(b.scheduler.add(decode_leg(2, prompt, 4, kv)));
    EXPECT_EQ(b.step().batch.size(), 1U);
    EXPECT_EQ(b.imported, 6U);
    b.run();
    EXPECT_EQ(b.cached[2], 12U);
    EXPECT_EQ(b.outputs[2], FakeKv::oracle(prompt, 4));
}

TEST(SchedulerLegs, WhatIsMissingOrBrokenIsComputed) {
    for (std::size_t bad = 0; bad < 3; ++bad) {
        for (const bool missing : {true, false}) {
            Bench b(small());
            const auto prompt = counting(19);
            auto kv = kv_of(prompt, 8);
            kv->parts[bad] = missing ? std::span<const std::byte>{} : kv->parts[bad].first(7);
            ASSERT_TRUE(b.scheduler.add(decode_leg(1, prompt, 4, kv)));
            b.run();
            EXPECT_EQ(b.imported, bad * 8);
            EXPECT_EQ(b.outputs[1], FakeKv::oracle(prompt, 4));
        }
    }
}

TEST(SchedulerLegs, ABrokenImportDoesNotTouchTheOthersOfItsStep) {
    Bench b(small());
    ASSERT_TRUE(b.scheduler.add(request(1, counting(5, 700), 9)));
    b.step();
    const auto prompt = counting(10);
    auto kv = kv_of(prompt, 4);
    kv->parts[1] = kv->parts[1].first(3);
    ASSERT_TRUE(b.scheduler.add(decode_leg(2, prompt, 3, kv)));
    ASSERT_TRUE(b.scheduler.add(request(3, counting(5, 900), 3)));
    b.run();
    EXPECT_EQ(b.outputs[1], FakeKv::oracle(counting(5, 700), 9));
    EXPECT_EQ(b.outputs[2], FakeKv::oracle(prompt, 3));
    EXPECT_EQ(b.outputs[3], FakeKv::oracle(counting(5, 900), 3));
}

TEST(SchedulerLegs, NoRoomAfterAnImportKeepsWhatIsThere) {
    Bench b(small());
    const auto prompt = counting(14);
    ASSERT_TRUE(b.scheduler.add(decode_leg(1, prompt, 3, kv_of(prompt, 8))));
    ASSERT_TRUE(b.scheduler.add(request(2, counting(3, 50), 3)));
    StepPlan plan = b.scheduler.plan();
    b.kv.apply(plan.ops);
    b.scheduler.imported(plan, plan.imports[0], b.kv.import_parts(plan.imports[0]));
    std::vector<RequestId> lost;
    b.scheduler.no_room(lost);
    EXPECT_TRUE(lost.empty());
    b.run();
    EXPECT_EQ(b.outputs[1], FakeKv::oracle(prompt, 3));
    EXPECT_EQ(b.outputs[2], FakeKv::oracle(counting(3, 50), 3));
}

// Legs and whole requests mixed, KV whole, with holes or broken: outputs, cells and events are
// exact, and what prefill legs leave is what their prompts determine.
RC_GTEST_PROP(SchedulerLegsProperty, OutputsCellsAndEventsAreExact, ()) {
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
    std::map<std::uint64_t, protocol::GenerateRequest> asked;
    std::set<std::uint64_t> cancelled;
    std::vector<std::vector<TokenId>> seen;
    const auto count = *rc::gen::inRange<std::uint64_t>(1, 25);
    for (std::uint64_t id = 1; id <= count; ++id) {
        std::vector<TokenId> prompt;
        if (!seen.empty() && *rc::gen::inRange(0, 3) > 0) {
            prompt = *rc::gen::elementOf(seen);
            prompt.resize(*rc::gen::inRange<std::size_t>(1, prompt.size() + 1));
        }
        const auto extra = *rc::gen::inRange(prompt.size() < 2 ? 2 : 0, 14);
        for (int k = 0; k < extra; ++k) prompt.push_back(*rc::gen::inRange<TokenId>(0, 3));
        prompt.resize(std::min<std::size_t>(prompt.size(), options.max_sequence_tokens - 1));
        const auto max_tokens = *rc::gen::inRange<std::uint32_t>(
            1, options.max_sequence_tokens - static_cast<std::uint32_t>(prompt.size()) + 1);
        seen.push_back(prompt);
        auto r = request(id, prompt, max_tokens);
        r.leg = *rc::gen::element(Leg::kWhole, Leg::kPrefill, Leg::kDecode, Leg::kDecode);
        if (r.leg == Leg::kDecode) {
            auto kv = kv_of(prompt, options.block_tokens * *rc::gen::inRange(1U, 4U));
            for (auto& part : kv->parts) {
                switch (*rc::gen::inRange(0, 8)) {
                    case 0:
                        part = {};
                        break;
                    case 1:
                        part = part.first(3);
                        break;
                    default:
                        break;
                }
            }
            r.kv = kv;
        }
        asked.emplace(id, r);
        RC_ASSERT(b.scheduler.add(std::move(r)).has_value());
        const auto steps = *rc::gen::inRange(0, 6);
        for (int k = 0; k < steps && !b.scheduler.idle(); ++k) b.step();
        if (*rc::gen::inRange(0, 8) == 0) {
            const auto victim = *rc::gen::inRange<std::uint64_t>(1, id + 1);
            if (b.scheduler.cancel(RequestId(victim))) cancelled.insert(victim);
        }
    }
    b.run();
    for (const auto& [id, r] : asked) {
        const auto expected = FakeKv::oracle(r.prompt, r.max_tokens);
        const auto& got = b.outputs[id];
        if (cancelled.contains(id)) {
            RC_ASSERT(got.size() <= expected.size());
            RC_ASSERT(std::equal(got.begin(), got.end(), expected.begin()));
        } else if (r.leg == Leg::kPrefill) {
            RC_ASSERT(got.empty());
            const auto kv = kv_of(r.prompt, 1000);
            const auto left = std::as_bytes(std::span(b.handed_over[id]));
            RC_ASSERT(std::ranges::equal(left, kv->parts[0]));
        } else {
            RC_ASSERT(got == expected);
        }
    }
    RC_ASSERT(b.scheduler.load().kv_used_tokens == 0U);
}

}  // namespace
}  // namespace stator::engine::llama
