#include "stator/engine/mock/live/mock_engine.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <utility>

#include "stator/engine/mock/live/mock_fixture.h"

namespace stator::engine {
namespace {

TEST(MockEngine, GivesTheSameTokensWhateverElseRuns) {
    MockHost host;
    MockOptions o = quick();
    o.core.blocks = 40;  // far too few for all: requests are preempted
    o.core.host = {.blocks = 20, .read_gb_per_s = 1, .write_gb_per_s = 1};
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    constexpr std::uint64_t kRequests = 30;
    const auto request = [](std::uint64_t id) {
        auto r = make_request(id, prompt_of(static_cast<TokenId>(id % 3), 9 + id % 5), 40);
        r.sampling.seed = id % 2;
        r.cache_salt = id % 7 == 0 ? 5 : 0;
        return r;
    };
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
        ASSERT_TRUE(engine->submit(request(id), sink));
    }
    sink->wait_ends(kRequests);
    EXPECT_GT(engine->forward_pass_metrics().preemptions, 0U);
    EXPECT_GT(engine->forward_pass_metrics().cached_tokens, 0U);
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
        ASSERT_EQ(sink->of(id).tokens.size(), 40U);
        EXPECT_EQ(sink->of(id).tokens, alone(request(id))) << id;
    }
    EXPECT_NE(sink->of(1).tokens, sink->of(2).tokens);
}

TEST(MockEngine, ARunCutAnywhereGoesOnAsIfItHadNotBeenCut) {
    const std::vector<TokenId> prompt = prompt_of(7, 6);
    constexpr std::uint32_t kTokens = 23;
    MockHost host;
    auto first = make_mock_engine(host, quick(), {});
    auto second = make_mock_engine(host, quick(), {});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(first->submit(make_request(100, prompt, kTokens), sink));
    sink->wait_ends(1);
    const auto whole = sink->of(100).tokens;
    for (std::uint32_t cut = 1; cut < kTokens; ++cut) {
        auto r = make_request(cut, prompt, kTokens - cut);
        r.prompt.insert(r.prompt.end(), whole.begin(), whole.begin() + cut);
        r.resumed_tokens = cut;
        ASSERT_TRUE(second->submit(std::move(r), sink));
        sink->wait_ends(static_cast<int>(cut) + 1);
        const auto rest = sink->of(cut);
        EXPECT_EQ(rest.tokens, std::vector<TokenId>(whole.begin() + cut, whole.end())) << cut;
        EXPECT_EQ(rest.last->prompt_tokens, 6U);
        EXPECT_LE(rest.last->cached_tokens, 6U);
    }
    auto nothing_left = make_request(50, prompt, 1);
    nothing_left.resumed_tokens = 6;
    EXPECT_EQ(second->submit(nothing_left, sink).error().param, "resumed_tokens");
}

TEST(MockEngine, HoldsItsOutputToNothing) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(), {});
    EXPECT_FALSE(engine->info().structured_output);
    auto r = make_request(1, {1, 2}, 2);
    r.constraint = std::make_shared<const protocol::OutputConstraint>();
    const auto refused = engine->submit(r, std::make_shared<Collector>());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(refused.error().param, "constraint");
}

TEST(MockEngine, ReportsWhatThePrefixCacheGave) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(), {});
    auto sink = std::make_shared<Collector>();
    EXPECT_EQ(engine->info().block_tokens, 4U);
    ASSERT_TRUE(engine->submit(make_request(1, prompt_of(1, 10), 2), sink));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(1).first->prompt_tokens, 10U);
    EXPECT_EQ(sink->of(1).first->cached_tokens, 0U);
    ASSERT_TRUE(engine->submit(make_request(2, prompt_of(1, 10), 2), sink));
    auto salted = make_request(3, prompt_of(1, 10), 2);
    salted.cache_salt = 9;
    ASSERT_TRUE(engine->submit(salted, sink));
    sink->wait_ends(3);
    EXPECT_EQ(sink->of(2).first->cached_tokens, 8U);
    EXPECT_EQ(sink->of(2).last->cached_tokens, 8U);
    EXPECT_EQ(sink->of(3).last->cached_tokens, 0U);
    EXPECT_EQ(sink->of(2).last->finish, FinishReason::kLength);
}

TEST(MockEngine, EndsAtStopTokensAndAtItsOwnEnd) {
    MockHost host;
    MockOptions o = quick();
    o.core.mean_output_tokens = 8;
    o.core.eos = 5000;
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    std::size_t tokens = 0;
    constexpr int kRequests = 60;
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
        ASSERT_TRUE(
            engine->submit(make_request(id, prompt_of(static_cast<TokenId>(id), 3), 400), sink));
    }
    sink->wait_ends(kRequests);
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
        const auto seen = sink->of(id);
        tokens += seen.tokens.size();
        EXPECT_EQ(seen.last->finish, FinishReason::kStop);
        EXPECT_EQ(seen.tokens.back(), 5000U);
    }
    EXPECT_GT(tokens, 4U * kRequests);
    EXPECT_LT(tokens, 16U * kRequests);
    auto r = make_request(100, prompt_of(1, 3), 30);
    r.ignore_eos = true;
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(kRequests + 1);
    ASSERT_EQ(sink->of(100).tokens.size(), 30U);
    r.id = RequestId(101);
    r.stop_token_ids = {sink->of(100).tokens[4]};
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(kRequests + 2);
    EXPECT_LE(sink->of(101).tokens.size(), 5U);
    EXPECT_EQ(sink->of(101).last->finish, FinishReason::kStop);
}

TEST(MockEngine, LogprobsHaveTheAskedShape) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(), {});
    auto sink = std::make_shared<Collector>();
    auto r = make_request(1, {10, 20}, 2);
    r.top_logprobs = 2;
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(1);
    const auto seen = sink->of(1);
    ASSERT_EQ(seen.top.size(), 4U);
    EXPECT_EQ(seen.top[0].token, seen.tokens[0]);
    EXPECT_EQ(seen.top[0].logprob, 0.0F);
    EXPECT_EQ(seen.top[3].token, (seen.tokens[1] + 1) % 1000);
    EXPECT_EQ(seen.top[3].logprob, -1.0F);
}

TEST(MockEngine, OneBatchPerSinkAndStep) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(), {});
    auto a = std::make_shared<Collector>();
    auto b = std::make_shared<Collector>();
    auto gate = std::make_shared<Collector>();
    // The engine stands still until all four are there: they run in the same steps.
    std::promise<void> submitted;
    bool waited = false;
    gate->on_event = [&, all = submitted.get_future().share()](const StepEvent&) {
        if (!std::exchange(waited, true)) all.wait();
    };
    ASSERT_TRUE(engine->submit(make_request(5, {9}, 1), gate));
    for (std::uint64_t id = 1; id <= 4; ++id) {
        ASSERT_TRUE(engine->submit(make_request(id, {9}, 50), id % 2 == 0 ? a : b));
    }
    submitted.set_value();
    a->wait_ends(2);
    b->wait_ends(2);
    // Two steps where one of the four came to the engine together with the gate's request.
    EXPECT_GE(a->batches(), 50);
    EXPECT_LE(a->batches(), 52);
    EXPECT_EQ(a->of(2).tokens.size(), 50U);
    EXPECT_EQ(b->of(3).tokens.size(), 50U);
}

/// 300 steps of 1 ms: wake-ups are late, each by something, and yet the end is as late as one.
TEST(MockEngine, LateWakeUpsDoNotAddUp) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(1), {});
    auto sink = std::make_shared<Collector>();
    const TimePoint start = Clock::real().now();
    ASSERT_TRUE(engine->submit(make_request(1, {1, 2}, 300), sink));
    sink->wait_ends(1);
    const auto took = sink->of(1).ended - start;
    const auto stats = host.stats();
    EXPECT_EQ(stats.steps, 300U);
    EXPECT_GE(took, 300ms);
    EXPECT_LE(took, 300ms + stats.latest + stats.lost + 20ms);
    EXPECT_GE(stats.late, stats.latest);
}

TEST(MockEngine, AnEngineThatLagsTooFarGivesUpCatchingUp) {
    MockHost host;
    MockOptions o = quick(1);
    o.catch_up = 5ms;
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    bool slept = false;
    sink->on_event = [&](const StepEvent&) {
        if (!std::exchange(slept, true)) std::this_thread::sleep_for(50ms);
    };
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 5), sink));
    sink->wait_ends(1);
    EXPECT_GE(host.stats().lost, 40ms);
}

TEST(MockEngine, RefusesWhatItCannotDo) {
    MockHost host;
    MockOptions o = step_never_ends();
    o.core.context_tokens = 10;
    o.core.max_running = 1;
    o.core.max_waiting = 1;
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    for (const auto& r :
         {make_request(1, {}, 1), make_request(1, {1}, 0), make_request(1, {1, 2}, 9)}) {
        EXPECT_EQ(engine->submit(r, sink).error().code, ErrorCode::kInvalidArgument);
    }
    ASSERT_TRUE(engine->submit(make_request(1, {1, 2}, 8), sink));
    ASSERT_TRUE(engine->submit(make_request(2, {1, 2}, 8), sink));
    const auto full = engine->submit(make_request(3, {1}, 1), sink);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
    EXPECT_GT(full.error().retry_after_ms, 0U);
    EXPECT_TRUE(engine->healthy());
    engine->stop(Deadline::at({}));
    EXPECT_EQ(engine->submit(make_request(4, {1}, 1), sink).error().code, ErrorCode::kUnavailable);
    EXPECT_FALSE(engine->healthy());
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kCancelled);
    EXPECT_EQ(sink->of(2).last->finish, FinishReason::kCancelled);
}

TEST(MockEngine, CancelEndsRunningAndWaitingWithTheStep) {
    MockHost host;
    MockOptions o = quick(1);
    o.core.max_running = 1;
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 400), sink));
    ASSERT_TRUE(engine->submit(make_request(2, {1}, 400), sink));
    engine->cancel(RequestId(2));
    engine->cancel(RequestId(99));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(2).last->finish, FinishReason::kCancelled);
    engine->cancel(RequestId(1));
    sink->wait_ends(2);
    EXPECT_LT(sink->of(1).tokens.size(), 400U);
    const auto load = engine->load();
    EXPECT_EQ(load.running + load.waiting, 0U);
    EXPECT_EQ(load.waiting_tokens, 0U);
    EXPECT_EQ(load.kv_used_tokens, 0U);
}

TEST(MockEngine, CancelFromWithinTheSink) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(), {});
    auto sink = std::make_shared<Collector>();
    sink->on_event = [&](const StepEvent& e) {
        if (!e.finish) engine->cancel(e.id);
    };
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 400), sink));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kCancelled);
    EXPECT_LE(sink->of(1).tokens.size(), 40U);
}

TEST(MockEngine, DeadlinesEndRequests) {
    MockHost host;
    MockOptions o = quick(1);
    o.core.max_running = 1;
    auto engine = make_mock_engine(host, o, {});
    auto sink = std::make_shared<Collector>();
    auto r = make_request(1, {1}, 500);
    r.deadline = Deadline::after(Clock::real().now(), 20ms);
    ASSERT_TRUE(engine->submit(r, sink));
    r.id = RequestId(2);  // waits behind 1
    r.deadline = Deadline::at({});
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(2);
    for (const std::uint64_t id : {1, 2}) {
        EXPECT_EQ(sink->of(id).last->finish, FinishReason::kCancelled);
        ASSERT_TRUE(sink->of(id).last->error);
        EXPECT_EQ(sink->of(id).last->error->code, ErrorCode::kDeadlineExceeded);
    }
    EXPECT_LT(sink->of(1).tokens.size(), 500U);
}

TEST(MockEngine, StopLetsWorkEndWithinItsDeadline) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(10), {});
    auto sink = std::make_shared<Collector>();
    for (std::uint64_t id = 1; id <= 4; ++id) {
        ASSERT_TRUE(engine->submit(make_request(id, {1}, 50), sink));
    }
    engine->stop(Deadline::after(Clock::real().now(), 60s));
    for (std::uint64_t id = 1; id <= 4; ++id) {
        ASSERT_EQ(sink->of(id).ends, 1);
        EXPECT_EQ(sink->of(id).last->finish, FinishReason::kLength);
    }
}

TEST(MockEngine, AnnouncesEachBlockWithItsTokensAndTier) {
    MockHost host;
    MockOptions o = quick();
    o.core.blocks = 40;
    o.core.host = {.blocks = 12, .read_gb_per_s = 10, .write_gb_per_s = 10};
    o.core.disk = {.blocks = 30, .read_gb_per_s = 1, .write_gb_per_s = 1};
    Listener listener;
    auto engine = make_mock_engine(host, o, listener.sink());
    auto sink = std::make_shared<Collector>();
    for (std::uint64_t id = 1; id <= 40; ++id) {
        ASSERT_TRUE(engine->submit(
            make_request(id, prompt_of(static_cast<TokenId>(id % 9), 17), 20), sink));
    }
    sink->wait_ends(40);
    const std::uint64_t cached = engine->load().kv_cached_tokens;
    engine->stop(Deadline::never());
    EXPECT_EQ(listener.gaps(), 0U);
    EXPECT_EQ(listener.stored_in().size(), 3U);
    EXPECT_GT(listener.size(), 0U);
    EXPECT_LE(listener.size() * 4, cached);  // a block may lie in two memories
}

/// Many submitters and cancellers at once, on many engines of two threads: every accepted request
/// ends exactly once.
TEST(MockEngine, EveryAcceptedRequestEndsOnce) {
    MockHost host({.threads = 2});
    MockOptions o = quick(1000);
    o.core.max_running = 8;
    o.core.max_waiting = 16;
    o.core.blocks = 64;
    constexpr std::uint64_t kThreads = 4;
    constexpr std::uint64_t kEach = 200;
    std::vector<std::unique_ptr<Engine>> engines;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
        o.core.seed = t;
        engines.push_back(make_mock_engine(host, o, {}));
    }
    auto sink = std::make_shared<Collector>();
    std::vector<std::vector<std::uint64_t>> accepted(kThreads);
    {
        std::vector<std::jthread> threads;
        for (std::uint64_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                for (std::uint64_t i = 0; i < kEach; ++i) {
                    const std::uint64_t id = t * kEach + i + 1;
                    Engine& engine = *engines[(t + i) % kThreads];
                    auto r = make_request(id, prompt_of(static_cast<TokenId>(id), 1 + i % 7),
                                          1 + i % 50);
                    if (i % 5 == 0) r.deadline = Deadline::after(Clock::real().now(), 1ms);
                    if (engine.submit(std::move(r), sink)) accepted[t].push_back(id);
                    if (i % 3 == 0) engine.cancel(RequestId(id));
                }
            });
        }
    }
    for (auto& engine : engines) engine->stop(Deadline::never());
    for (const auto& ids : accepted) {
        for (const auto id : ids) {
            const auto seen = sink->of(id);
            EXPECT_EQ(seen.ends, 1) << id;
            EXPECT_EQ(seen.after_end, 0) << id;
        }
    }
    for (auto& engine : engines) {
        const auto load = engine->load();
        EXPECT_EQ(load.running + load.waiting + load.waiting_tokens + load.kv_used_tokens, 0U);
    }
}

}  // namespace
}  // namespace stator::engine
