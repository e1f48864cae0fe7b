#include "stator/engine/http/http_engine_fixture.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(HttpEngineTest, TokensComeAsTheyStreamAndTheEndWithItsUsage) {
    HttpEngineOptions options;
    options.key = "secret";
    options.rank = 3;
    start(
        [](ScriptedConnection& c, const std::string&) {
            c.send(kStreamHead + tokens("[10]") + tokens("[11]") + tokens("[12]", "\"length\"") +
                   usage(4, 2));
        },
        std::move(options));
    auto r = request(1);
    r.traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
    ASSERT_TRUE(engine_->submit(r, sink_));
    const auto seen = sink_->wait_end(1);
    EXPECT_THAT(seen.tokens, ElementsAre(10, 11, 12));
    EXPECT_EQ(seen.events.back().finish, FinishReason::kLength);
    EXPECT_EQ(seen.events.back().prompt_tokens, 4U);
    EXPECT_EQ(seen.events.back().cached_tokens, 2U);
    // What was cached is not known yet.
    EXPECT_EQ(seen.events.front().prompt_tokens, 0U);
    const auto sent = last_request();
    EXPECT_THAT(sent, HasSubstr("POST /v1/completions HTTP/1.1\r\n"));
    EXPECT_THAT(sent, HasSubstr("Authorization: Bearer secret\r\n"));
    EXPECT_THAT(sent, HasSubstr("X-data-parallel-rank: 3\r\n"));
    EXPECT_THAT(sent, HasSubstr("traceparent: 00-0123"));
    EXPECT_THAT(sent, HasSubstr(R"("prompt":[1,2,3,4])"));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
    EXPECT_EQ(engine_->forward_pass_metrics().decode_tokens, 3U);
}

TEST_F(HttpEngineTest, ManyAtOnceAreDeliveredTogether) {
    HttpEngineOptions options;
    options.info.max_running = 64;
    start(
        [](ScriptedConnection& c, const std::string&) {
            c.send(kStreamHead);
            for (int i = 0; i < 20; ++i) c.send(tokens("[7]"));
            c.send(tokens("[8]", "\"stop\"") + usage(4, 0));
        },
        std::move(options));
    for (std::uint64_t id = 1; id <= 32; ++id) ASSERT_TRUE(engine_->submit(request(id), sink_));
    for (std::uint64_t id = 1; id <= 32; ++id) {
        const auto seen = sink_->wait_end(id);
        EXPECT_EQ(seen.tokens.size(), 21U);
        EXPECT_EQ(seen.events.back().finish, FinishReason::kStop);
    }
    EXPECT_LT(sink_->steps(), 32 * 21);
}

TEST_F(HttpEngineTest, RefusalsAreWhatTheEngineSays) {
    start([](ScriptedConnection& c, const std::string&) {
        c.answer(
            R"({"error":{"message":"too long","type":"BadRequestError","param":"input_tokens","code":400}})",
            "400 Bad Request");
    });
    ASSERT_TRUE(engine_->submit(request(1), sink_));
    const auto seen = sink_->wait_end(1);
    EXPECT_EQ(seen.events.back().finish, FinishReason::kError);
    EXPECT_EQ(seen.events.back().error->code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(seen.events.back().error->message, "too long");
    EXPECT_EQ(seen.events.back().error->param, "input_tokens");
}

TEST_F(HttpEngineTest, AFullEngineSaysWhenToComeAgain) {
    start([](ScriptedConnection& c, const std::string&) {
        c.send("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n");
    });
    ASSERT_TRUE(engine_->submit(request(1), sink_));
    const auto error = sink_->wait_end(1).events.back().error;
    EXPECT_EQ(error->code, ErrorCode::kOverloaded);
    EXPECT_EQ(error->retry_after_ms, 3000U);
    EXPECT_TRUE(error->retryable);
}

TEST_F(HttpEngineTest, AnAnswerThatBreaksOffGoesElsewhere) {
    start([](ScriptedConnection& c, const std::string&) {
        c.send(kStreamHead + tokens("[10]"));
        c.reset();
    });
    ASSERT_TRUE(engine_->submit(request(1), sink_));
    const auto seen = sink_->wait_end(1);
    EXPECT_LE(seen.tokens.size(), 1U);
    EXPECT_EQ(seen.events.back().error->code, ErrorCode::kInternal);
    EXPECT_TRUE(seen.events.back().error->retryable) << "by another one";
}

TEST_F(HttpEngineTest, OneThatFailsAtEveryRequestRests) {
    std::atomic<const char*> status = "400 Bad Request";
    start([&](ScriptedConnection& c, const std::string&) { (void)c.answer("{}", status.load()); });
    std::uint64_t id = 0;
    const auto next = [&] {
        EXPECT_TRUE(engine_->submit(request(++id), sink_));
        return sink_->wait_end(id).events.back().error;
    };
    for (int i = 0; i < 20; ++i) EXPECT_EQ(next()->code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(engine_->healthy()) << "its clients' faults are not its own";
    status = "500 Internal Server Error";
    for (int i = 0; i < 8; ++i) {
        const auto why = next();
        EXPECT_EQ(why->code, ErrorCode::kInternal);
        EXPECT_TRUE(why->retryable) << "by another one";
    }
    EXPECT_TRUE(eventually([&] { return !engine_->healthy(); }));
    EXPECT_FALSE(engine_->submit(request(++id), sink_));
    EXPECT_TRUE(eventually([&] { return engine_->healthy(); })) << "after a while";
    next();
    EXPECT_TRUE(eventually([&] { return !engine_->healthy(); })) << "and no better than before";
}

TEST_F(HttpEngineTest, WhatIsNotInTheDialectIsNoAnswer) {
    for (const char* body : {"{\"choices\":", R"({"choices":[{"token_ids":["a"]}]})"}) {
        start([body](ScriptedConnection& c, const std::string&) {
            c.send(kStreamHead + chunk(body));
            c.await_end();
        });
        ASSERT_TRUE(engine_->submit(request(1), sink_));
        const auto seen = sink_->wait_end(1);
        EXPECT_THAT(seen.tokens, IsEmpty());
        EXPECT_EQ(seen.events.back().error->code, ErrorCode::kDataLoss);
        TearDown();
        sink_ = std::make_shared<Collector>();
    }
}

TEST_F(HttpEngineTest, CancellingClosesTheConnection) {
    std::atomic<bool> left{false};
    start([&left](ScriptedConnection& c, const std::string&) {
        c.send(kStreamHead + tokens("[10]"));
        c.await_end();
        left = true;
    });
    ASSERT_TRUE(engine_->submit(request(1), sink_));
    ASSERT_TRUE(sink_->wait_tokens(1, 1));
    engine_->cancel(RequestId(1));
    EXPECT_EQ(sink_->wait_end(1).events.back().finish, FinishReason::kCancelled);
    EXPECT_TRUE(eventually([&] { return left.load(); }));
    engine_->cancel(RequestId(1));
    engine_->cancel(RequestId(99));
}

TEST_F(HttpEngineTest, ADeadlineCancels) {
    start([](ScriptedConnection& c, const std::string&) {
        c.send(kStreamHead);
        c.await_end();
    });
    auto r = request(1);
    r.deadline = Deadline::after(Clock::real().now(), 50ms);
    ASSERT_TRUE(engine_->submit(r, sink_));
    EXPECT_EQ(sink_->wait_end(1).events.back().finish, FinishReason::kCancelled);
}

TEST_F(HttpEngineTest, MoreThanItTakesIsRefusedAtOnce) {
    start([](ScriptedConnection& c, const std::string&) {
        c.send(kStreamHead);
        c.await_end();
    });
    ASSERT_TRUE(engine_->submit(request(1), sink_));
    const auto full = engine_->submit(request(2), sink_);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
    EXPECT_EQ(engine_->load().running, 1U);
    auto leg = request(3);
    leg.leg = protocol::Leg::kPrefill;
    EXPECT_EQ(engine_->submit(leg, sink_).error().code, ErrorCode::kUnsupported);
    // Stopping ends what runs.
    engine_->stop(Deadline::after(Clock::real().now(), 20ms));
    EXPECT_EQ(sink_->wait_end(1).events.back().finish, FinishReason::kCancelled);
    EXPECT_EQ(engine_->submit(request(4), sink_).error().code, ErrorCode::kUnavailable);
}

TEST_F(HttpEngineTest, ItsLoadIsWhatTheEngineShows) {
    HttpEngineOptions options;
    options.info.max_running = 10;
    options.kv_total_tokens = 1000;
    options.rank = 1;
    {
        const std::scoped_lock lock(mutex_);
        metrics_ =
            "vllm:num_requests_running{engine=\"0\"} 9\nvllm:num_requests_running{engine=\"1\"} 2\n"
            "vllm:num_requests_waiting{engine=\"1\"} 1\nvllm:kv_cache_usage_perc{engine=\"1\"} "
            "0.5\n";
    }
    start([](ScriptedConnection& c, const std::string&) { c.await_end(); }, std::move(options));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 2; }));
    EXPECT_EQ(engine_->load().waiting, 1U);
    EXPECT_EQ(engine_->load().kv_used_tokens, 500U);
}

TEST_F(HttpEngineTest, AnEngineThatIsSickIsNotHealthyUntilItIsWell) {
    start([](ScriptedConnection& c, const std::string&) { c.await_end(); });
    EXPECT_TRUE(engine_->healthy());
    sick_ = true;
    EXPECT_TRUE(eventually([&] { return !engine_->healthy(); }));
    sick_ = false;
    EXPECT_TRUE(eventually([&] { return engine_->healthy(); }));
}

std::string usage_alone(int prompt) {
    return chunk(fmt::format(
               R"({{"choices":[],"usage":{{"prompt_tokens":{},"prompt_tokens_details":null}}}})",
               prompt)) +
           chunk("[DONE]") + "0\r\n\r\n";
}

TEST_F(HttpEngineTest, WhatWasCachedIsUnknownUntilTheEngineHasSaidItOnce) {
    std::atomic<int> asked{0};
    start([&](ScriptedConnection& c, const std::string&) {
        const bool tells = asked++ == 1;
        c.send(kStreamHead + tokens("[10]") + tokens("[11]", "\"length\"") +
               (tells ? usage(4, 3) : usage_alone(4)));
    });
    const auto last = [&](std::uint64_t id) {
        EXPECT_TRUE(engine_->submit(request(id), sink_));
        return sink_->wait_end(id).events.back();
    };
    EXPECT_EQ(last(1).prompt_tokens, 0U);  // nothing, or it does not tell
    const auto told = last(2);
    EXPECT_EQ(told.prompt_tokens, 4U);
    EXPECT_EQ(told.cached_tokens, 3U);
    const auto none = last(3);  // one that tells leaves out a 0
    EXPECT_EQ(none.prompt_tokens, 4U);
    EXPECT_EQ(none.cached_tokens, 0U);
}

TEST_F(HttpEngineTest, OneThatIsNotWellTakesNothing) {
    std::atomic<int> told_sick{0};
    std::atomic<int> told_well{0};
    std::atomic<int> back{0};
    HttpEngineOptions options;
    options.on_health = [&](bool well, std::string_view why) {
        EXPECT_EQ(well, why.empty());
        ++(well ? told_well : told_sick);
    };
    options.on_back = [&] { ++back; };
    start([](ScriptedConnection& c, const std::string&) { c.await_end(); }, std::move(options));
    sick_ = true;
    ASSERT_TRUE(eventually([&] { return !engine_->healthy(); }));
    const auto refused = engine_->submit(request(1), sink_);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(refused.error().retryable);
    EXPECT_EQ(back, 0);
    sick_ = false;
    ASSERT_TRUE(eventually([&] { return engine_->healthy() && told_well == 1; }));
    EXPECT_EQ(told_sick, 1);
    EXPECT_EQ(back, 1);
}

TEST_F(HttpEngineTest, ALostConnectionIsReasonToLookAgain) {
    std::atomic<int> back{0};
    HttpEngineOptions options;
    options.on_back = [&] { ++back; };
    start(
        [](ScriptedConnection& c, const std::string&) {
            c.send(kStreamHead + tokens("[10]"));
            c.reset();
        },
        std::move(options));
    ASSERT_TRUE(engine_->submit(request(1), sink_));
    (void)sink_->wait_end(1);
    EXPECT_TRUE(eventually([&] { return back == 1; }));
    EXPECT_TRUE(engine_->healthy());
}

TEST_F(HttpEngineTest, OneThatIsUpButDeadIsNotHealthyUntilItGivesAToken) {
    std::atomic<bool> dead{true};
    HttpEngineOptions options;
    options.info.max_running = 4;
    options.canary_every = 20ms;
    options.canary_within = 200ms;
    start(
        [&](ScriptedConnection& c, const std::string&) {
            if (dead) {
                c.await_end();
            } else {
                c.send(kStreamHead + tokens("[10]", "\"length\"") + usage(1, 0));
            }
        },
        std::move(options));
    ASSERT_TRUE(eventually([&] { return !engine_->healthy(); }));
    EXPECT_THAT(last_request(), HasSubstr(R"("prompt":[1])"));
    EXPECT_THAT(last_request(), HasSubstr(R"("max_tokens":1)"));
    dead = false;
    EXPECT_TRUE(eventually([&] { return engine_->healthy(); }));
}

TEST_F(HttpEngineTest, ACanaryThatIsRefusedIsAnsweredAllTheSame) {
    std::atomic<int> asked{0};
    HttpEngineOptions options;
    options.canary_every = 20ms;
    start(
        [&](ScriptedConnection& c, const std::string&) {
            ++asked;
            c.answer("{}", "400 Bad Request");
        },
        std::move(options));
    EXPECT_TRUE(eventually([&] { return asked > 3; }));
    EXPECT_TRUE(engine_->healthy());
}

TEST_F(HttpEngineTest, SubmittersAreHeardBeforeTheEngine) {
    std::atomic<std::uint64_t> salt{0};
    HttpEngineOptions options;
    options.on_submit = [&](const protocol::GenerateRequest& r) { salt = r.cache_salt; };
    start([](ScriptedConnection& c, const std::string&) { c.await_end(); }, std::move(options));
    auto r = request(1);
    r.cache_salt = 7;
    ASSERT_TRUE(engine_->submit(r, sink_));
    EXPECT_EQ(salt, 7U);
}

}  // namespace
}  // namespace stator::engine
