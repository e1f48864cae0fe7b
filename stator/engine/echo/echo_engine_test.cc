#include "stator/engine/echo/echo_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

namespace stator::engine {
namespace {

using namespace std::chrono_literals;
using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;
using tokens::TokenId;

constexpr auto kForever = 1h;  ///< a step that never comes: what is running stays running

/// Collects everything and lets the test wait for it.
class Collector final : public StepSink {
  public:
    struct Seen {
        std::vector<TokenId> tokens;
        std::vector<std::uint32_t> counts;
        std::vector<protocol::TokenLogprob> top;
        std::optional<StepEvent> last;
        StepEvent first;
        int ends = 0;
        int after_end = 0;
    };

    void on_step(StepBatch&& batch) override {
        const std::scoped_lock lock(mutex_);
        ++batches_;
        for (StepEvent& e : batch.events) {
            Seen& seen = seen_[e.id.value];
            if (seen.ends > 0) ++seen.after_end;
            if (seen.counts.empty()) seen.first = e;
            seen.counts.push_back(e.count);
            for (std::uint32_t i = 0; i < e.count; ++i) {
                const auto& t = batch.tokens.at(e.first + i);
                seen.tokens.push_back(t.token);
                for (std::uint32_t k = 0; k < t.top_count; ++k) {
                    seen.top.push_back(batch.top.at(t.top_first + k));
                }
            }
            if (e.finish) {
                ++seen.ends;
                ++ended_;
                seen.last = e;
            }
            if (on_event) on_event(e);
        }
        changed_.notify_all();
    }

    void wait_ends(int n) {
        std::unique_lock lock(mutex_);
        ASSERT_TRUE(changed_.wait_for(lock, 20s, [&] { return ended_ >= n; }))
            << "ended: " << ended_;
    }
    Seen of(std::uint64_t id) {
        const std::scoped_lock lock(mutex_);
        return seen_[id];
    }
    int batches() {
        const std::scoped_lock lock(mutex_);
        return batches_;
    }

    std::function<void(const StepEvent&)> on_event;

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Seen> seen_;
    int ended_ = 0;
    int batches_ = 0;
};

GenerateRequest make_request(std::uint64_t id, std::vector<TokenId> prompt,
                             std::uint32_t max_tokens) {
    GenerateRequest r;
    r.id = RequestId(id);
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    return r;
}

TEST(EchoEngine, RepeatsThePromptUpToMaxTokens) {
    auto engine = make_echo_engine({});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {5, 6, 7}, 8), sink));
    sink->wait_ends(1);
    const auto seen = sink->of(1);
    EXPECT_EQ(seen.tokens, (std::vector<TokenId>{5, 6, 7, 5, 6, 7, 5, 6}));
    EXPECT_EQ(seen.last->finish, FinishReason::kLength);
    EXPECT_EQ(seen.first.prompt_tokens, 3U);
    EXPECT_EQ(seen.last->prompt_tokens, 3U);
    EXPECT_EQ(sink->batches(), 8);
}

TEST(EchoEngine, GivesSeveralTokensAStep) {
    auto engine = make_echo_engine({.tokens_per_step = 3, .cached_tokens = 1});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1, 2}, 8), sink));
    sink->wait_ends(1);
    const auto seen = sink->of(1);
    EXPECT_EQ(seen.counts, (std::vector<std::uint32_t>{3, 3, 2}));
    EXPECT_EQ(seen.tokens, (std::vector<TokenId>{1, 2, 1, 2, 1, 2, 1, 2}));
    EXPECT_EQ(seen.first.cached_tokens, 1U);
}

TEST(EchoEngine, OneBatchPerSinkAndStep) {
    auto engine = make_echo_engine({.step = 1ms});
    auto a = std::make_shared<Collector>();
    auto b = std::make_shared<Collector>();
    for (std::uint64_t id = 1; id <= 4; ++id) {
        ASSERT_TRUE(engine->submit(make_request(id, {9}, 50), id % 2 == 0 ? a : b));
    }
    a->wait_ends(2);
    b->wait_ends(2);
    // Two requests of 50 steps each: at most 50 batches and those of a later start.
    EXPECT_LE(a->batches(), 60);
    EXPECT_GE(a->batches(), 50);
    EXPECT_EQ(a->of(2).tokens.size(), 50U);
    EXPECT_EQ(b->of(3).tokens.size(), 50U);
}

TEST(EchoEngine, StopsAtStopTokensAfterMinTokens) {
    auto engine = make_echo_engine({.tokens_per_step = 4});
    auto sink = std::make_shared<Collector>();
    auto r = make_request(1, {1, 2, 3}, 100);
    r.stop_token_ids = {3, 77};
    ASSERT_TRUE(engine->submit(r, sink));
    r.id = RequestId(2);
    r.min_tokens = 4;
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(2);
    EXPECT_EQ(sink->of(1).tokens, (std::vector<TokenId>{1, 2, 3}));
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kStop);
    EXPECT_EQ(sink->of(2).tokens, (std::vector<TokenId>{1, 2, 3, 1, 2, 3}));
}

TEST(EchoEngine, ARunCutAnywhereGoesOnAsIfItHadNotBeenCut) {
    const std::vector<TokenId> prompt{4, 5, 6};
    constexpr std::uint32_t kTokens = 10;
    auto engine = make_echo_engine({.tokens_per_step = 2, .cached_tokens = 8});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(100, prompt, kTokens), sink));
    sink->wait_ends(1);
    const auto whole = sink->of(100).tokens;
    for (std::uint32_t cut = 1; cut < kTokens; ++cut) {
        auto r = make_request(cut, prompt, kTokens - cut);
        r.prompt.insert(r.prompt.end(), whole.begin(), whole.begin() + cut);
        r.resumed_tokens = cut;
        ASSERT_TRUE(engine->submit(std::move(r), sink));
        sink->wait_ends(static_cast<int>(cut) + 1);
        const auto rest = sink->of(cut);
        EXPECT_EQ(rest.tokens, std::vector<TokenId>(whole.begin() + cut, whole.end())) << cut;
        EXPECT_EQ(rest.last->prompt_tokens, 3U);
        EXPECT_EQ(rest.last->cached_tokens, 2U);
    }
    auto nothing_left = make_request(50, prompt, 1);
    nothing_left.resumed_tokens = 3;
    EXPECT_EQ(engine->submit(nothing_left, sink).error().param, "resumed_tokens");
}

TEST(EchoEngine, HoldsItsOutputToNothing) {
    auto engine = make_echo_engine({});
    EXPECT_FALSE(engine->info().structured_output);
    auto r = make_request(1, {10, 20}, 2);
    r.constraint = std::make_shared<const protocol::OutputConstraint>();
    const auto refused = engine->submit(r, std::make_shared<Collector>());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(refused.error().param, "constraint");
}

TEST(EchoEngine, LogprobsHaveTheAskedShape) {
    auto engine = make_echo_engine({});
    auto sink = std::make_shared<Collector>();
    auto r = make_request(1, {10, 20}, 2);
    r.top_logprobs = 2;
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(1);
    const auto seen = sink->of(1);
    ASSERT_EQ(seen.top.size(), 4U);
    EXPECT_EQ(seen.top[0].token, 10U);
    EXPECT_EQ(seen.top[0].logprob, 0.0F);
    EXPECT_EQ(seen.top[3].token, 21U);
    EXPECT_EQ(seen.top[3].logprob, -1.0F);
}

TEST(EchoEngine, FailsWhenTold) {
    auto engine = make_echo_engine({.fail_after_tokens = 3});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 10), sink));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(1).tokens.size(), 3U);
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kError);
    ASSERT_TRUE(sink->of(1).last->error);
    EXPECT_EQ(sink->of(1).last->error->code, ErrorCode::kInternal);
}

TEST(EchoEngine, RefusesWhatItCannotDo) {
    auto engine = make_echo_engine(
        {.context_tokens = 10, .max_running = 1, .max_waiting = 1, .step = kForever});
    auto sink = std::make_shared<Collector>();
    EXPECT_EQ(engine->submit(make_request(1, {}, 1), sink).error().code,
              ErrorCode::kInvalidArgument);
    EXPECT_EQ(engine->submit(make_request(1, {1}, 0), sink).error().code,
              ErrorCode::kInvalidArgument);
    EXPECT_EQ(engine->submit(make_request(1, {1, 2}, 9), sink).error().code,
              ErrorCode::kInvalidArgument);
    ASSERT_TRUE(engine->submit(make_request(1, {1, 2}, 8), sink));
    ASSERT_TRUE(engine->submit(make_request(2, {1, 2}, 8), sink));
    const auto full = engine->submit(make_request(3, {1}, 1), sink);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
    EXPECT_GT(full.error().retry_after_ms, 0U);
    engine->stop(Deadline::at({}));
    EXPECT_EQ(engine->submit(make_request(4, {1}, 1), sink).error().code, ErrorCode::kUnavailable);
    EXPECT_FALSE(engine->healthy());
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kCancelled);
    EXPECT_EQ(sink->of(2).last->finish, FinishReason::kCancelled);
}

TEST(EchoEngine, CancelEndsRunningAndWaitingAtOnce) {
    auto engine = make_echo_engine({.max_running = 1, .step = kForever});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 10), sink));
    ASSERT_TRUE(engine->submit(make_request(2, {1}, 10), sink));
    engine->cancel(RequestId(2));
    engine->cancel(RequestId(99));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(2).last->finish, FinishReason::kCancelled);
    engine->cancel(RequestId(1));
    sink->wait_ends(2);
    const auto load = engine->load();
    EXPECT_EQ(load.running + load.waiting, 0U);
    EXPECT_EQ(load.waiting_tokens, 0U);
    EXPECT_EQ(load.kv_used_tokens, 0U);
}

TEST(EchoEngine, CancelFromWithinTheSink) {
    auto engine = make_echo_engine({});
    auto sink = std::make_shared<Collector>();
    sink->on_event = [&](const StepEvent& e) {
        if (!e.finish) engine->cancel(e.id);
    };
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 1'000'00), sink));
    sink->wait_ends(1);
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kCancelled);
    EXPECT_LE(sink->of(1).tokens.size(), 2U);
}

TEST(EchoEngine, DeadlinesEndRequests) {
    auto engine = make_echo_engine({.max_running = 1, .step = kForever});
    auto sink = std::make_shared<Collector>();
    auto r = make_request(1, {1}, 10);
    r.deadline = Deadline::after(Clock::real().now(), 20ms);
    ASSERT_TRUE(engine->submit(r, sink));
    r.id = RequestId(2);  // waits behind 1
    r.deadline = Deadline::at({});
    ASSERT_TRUE(engine->submit(r, sink));
    sink->wait_ends(2);
    EXPECT_EQ(sink->of(1).last->finish, FinishReason::kCancelled);
    EXPECT_EQ(sink->of(2).last->finish, FinishReason::kCancelled);
}

TEST(EchoEngine, StopLetsWorkEndWithinItsDeadline) {
    auto engine = make_echo_engine({.max_running = 2, .step = 1ms});
    auto sink = std::make_shared<Collector>();
    for (std::uint64_t id = 1; id <= 4; ++id) {
        ASSERT_TRUE(engine->submit(make_request(id, {1}, 5), sink));
    }
    engine->stop(Deadline::after(Clock::real().now(), 60s));
    for (std::uint64_t id = 1; id <= 4; ++id) {
        ASSERT_EQ(sink->of(id).ends, 1);
        EXPECT_EQ(sink->of(id).last->finish, FinishReason::kLength);
    }
}

TEST(EchoEngine, SleepsWhenIdle) {
    auto engine = make_echo_engine({});
    auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine->submit(make_request(1, {1}, 5), sink));
    sink->wait_ends(1);
    EXPECT_EQ(engine->forward_pass_metrics().steps, 5U);
    EXPECT_EQ(engine->forward_pass_metrics().decode_tokens, 5U);
    EXPECT_EQ(engine->load().running, 0U);
}

/// Many submitters and cancellers at once: every accepted request ends exactly once, with a prefix
/// of its echo.
TEST(EchoEngine, EveryAcceptedRequestEndsOnce) {
    auto engine = make_echo_engine({.max_running = 8, .max_waiting = 16, .tokens_per_step = 3});
    auto sink = std::make_shared<Collector>();
    constexpr std::uint64_t kThreads = 4;
    constexpr std::uint64_t kEach = 300;
    std::vector<std::vector<std::uint64_t>> accepted(kThreads);
    {
        std::vector<std::jthread> threads;
        for (std::uint64_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                for (std::uint64_t i = 0; i < kEach; ++i) {
                    const std::uint64_t id = t * kEach + i + 1;
                    std::vector<TokenId> prompt(1 + i % 7);
                    std::iota(prompt.begin(), prompt.end(), static_cast<TokenId>(id));
                    if (engine->submit(make_request(id, prompt, 1 + i % 50), sink)) {
                        accepted[t].push_back(id);
                    }
                    if (i % 3 == 0) engine->cancel(RequestId(id));
                }
            });
        }
    }
    engine->stop(Deadline::never());
    for (const auto& ids : accepted) {
        for (const auto id : ids) {
            const auto seen = sink->of(id);
            EXPECT_EQ(seen.ends, 1) << id;
            EXPECT_EQ(seen.after_end, 0) << id;
            const std::uint64_t i = (id - 1) % kEach;
            for (std::size_t k = 0; k < seen.tokens.size(); ++k) {
                EXPECT_EQ(seen.tokens[k], id + k % (1 + i % 7));
            }
            if (seen.last && seen.last->finish == FinishReason::kLength) {
                EXPECT_EQ(seen.tokens.size(), 1 + i % 50);
            }
        }
    }
    const auto load = engine->load();
    EXPECT_EQ(load.running + load.waiting + load.waiting_tokens + load.kv_used_tokens, 0U);
}

}  // namespace
}  // namespace stator::engine
