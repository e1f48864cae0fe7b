#include "stator/engine/http/http_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "stator/net/scripted_server.h"

namespace stator::engine {
namespace {

using namespace std::chrono_literals;
using net::ScriptedConnection;
using net::ScriptedServer;
using protocol::FinishReason;
using protocol::RequestId;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Collector final : public StepSink {
  public:
    struct Seen {
        std::vector<protocol::TokenId> tokens;
        std::vector<protocol::StepEvent> events;
        [[nodiscard]] bool ended() const { return !events.empty() && events.back().finish; }
    };
    void on_step(protocol::StepBatch&& batch) override {
        const std::scoped_lock lock(mutex_);
        ++steps_;
        for (auto& event : batch.events) {
            Seen& seen = by_id_[event.id.value];
            for (std::uint32_t i = 0; i < event.count; ++i) {
                seen.tokens.push_back(batch.tokens.at(event.first + i).token);
            }
            seen.events.push_back(std::move(event));
        }
        changed_.notify_all();
    }
    Seen wait_end(std::uint64_t id) {
        std::unique_lock lock(mutex_);
        EXPECT_TRUE(changed_.wait_for(lock, 20s, [&] { return by_id_[id].ended(); })) << id;
        return by_id_[id];
    }
    bool wait_tokens(std::uint64_t id, std::size_t n) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 20s, [&] { return by_id_[id].tokens.size() >= n; });
    }
    [[nodiscard]] int steps() {
        const std::scoped_lock lock(mutex_);
        return steps_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Seen> by_id_;
    int steps_ = 0;
};

constexpr const char* kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string chunk(const std::string& data) {
    const std::string event = "data: " + data + "\n\n";
    return fmt::format("{:x}\r\n{}\r\n", event.size(), event);
}
std::string tokens(const std::string& ids, const std::string& finish = "null") {
    return chunk(R"({"choices":[{"index":0,"token_ids":)" + ids + R"(,"finish_reason":)" + finish +
                 "}]}");
}
std::string usage(int prompt, int cached) {
    return chunk(fmt::format(
               R"({{"choices":[],"usage":{{"prompt_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}}}}}})",
               prompt, cached)) +
           chunk("[DONE]") + "0\r\n\r\n";
}

/// A server that looks well, and generates as the test says.
class HttpEngineTest : public testing::Test {
  protected:
    using Generate = std::function<void(ScriptedConnection&, const std::string& request)>;

    void start(Generate generate, HttpEngineOptions options = {}) {
        server_ = std::make_unique<ScriptedServer>(
            [this, generate = std::move(generate)](ScriptedConnection& c) {
                for (auto r = c.read_request(); !r.empty(); r = c.read_request()) {
                    if (r.starts_with("GET /health")) {
                        if (!c.answer("", sick_ ? "503 Service Unavailable" : "200 OK")) return;
                    } else if (r.starts_with("GET /metrics")) {
                        const std::scoped_lock lock(mutex_);
                        if (!c.answer(metrics_)) return;
                    } else {
                        {
                            const std::scoped_lock lock(mutex_);
                            last_ = r;
                        }
                        generate(c, r);
                    }
                }
            });
        options.url = net::parse_http_url(server_->url()).value();
        if (options.dialect.model.empty()) options.dialect.model = "m";
        options.info.max_running = std::max(1U, options.info.max_running);
        options.look_every = options.look_idle_every = 20ms;
        engine_ = make_http_engine(std::move(options)).value();
    }
    void TearDown() override {
        engine_.reset();
        server_.reset();
    }
    static protocol::GenerateRequest request(std::uint64_t id) {
        protocol::GenerateRequest r;
        r.id = RequestId(id);
        r.prompt = {1, 2, 3, 4};
        r.max_tokens = 3;
        return r;
    }
    std::string last_request() {
        const std::scoped_lock lock(mutex_);
        return last_;
    }
    template <typename F>
    static bool eventually(const F& f) {
        for (int i = 0; i < 2000; ++i) {
            if (f()) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }

    std::mutex mutex_;
    std::string metrics_ = "vllm:num_requests_running{engine=\"0\"} 0\n";
    std::string last_;
    std::atomic<bool> sick_{false};
    std::unique_ptr<ScriptedServer> server_;
    std::unique_ptr<Engine> engine_;
    std::shared_ptr<Collector> sink_ = std::make_shared<Collector>();
};

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
    EXPECT_EQ(seen.events.back().error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(seen.events.back().error->retryable);
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
