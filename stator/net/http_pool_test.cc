#include "stator/net/http_pool.h"

#include <gmock/gmock.h>

#include <condition_variable>
#include <optional>
#include <string>
#include <vector>

#include "stator/net/http_fixture.h"
#include "stator/net/scripted_server.h"
#include "stator/net/stream_fixture.h"
#include "stator/net/tls_fixture.h"

namespace stator::net {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::StartsWith;
using Kind = HttpFailure::Kind;

/// Remembers what a call gave, for the test's thread to wait for.
class Recorded : public HttpCallHandler {
  public:
    std::function<void(std::string_view)> when_body;
    std::function<void()> when_end;

    void on_head(const HttpResponseHead& head) override {
        const std::scoped_lock lock(mutex_);
        EXPECT_EQ(status_, 0);
        EXPECT_FALSE(ended_);
        status_ = head.status;
    }
    void on_body(std::string_view piece, TimePoint) override {
        {
            const std::scoped_lock lock(mutex_);
            EXPECT_NE(status_, 0);
            EXPECT_FALSE(ended_);
            body_ += piece;
        }
        if (when_body) when_body(piece);
    }
    void on_end(const HttpFailure* failure, TimePoint) override {
        if (when_end) when_end();
        const std::scoped_lock lock(mutex_);
        EXPECT_FALSE(ended_);
        ended_ = true;
        if (failure != nullptr) failure_ = *failure;
        changed_.notify_all();
    }

    /// Waits for the end.
    [[nodiscard]] std::optional<HttpFailure> failure() {
        std::unique_lock lock(mutex_);
        EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return ended_; })) << "never ended";
        return failure_;
    }
    [[nodiscard]] std::string body() {
        const auto wrong = failure();
        EXPECT_FALSE(wrong.has_value()) << wrong.value_or(HttpFailure{}).error.message;
        return body_;
    }
    [[nodiscard]] Kind kind() {
        const auto wrong = failure();
        EXPECT_TRUE(wrong.has_value()) << "ended well";
        return wrong.value_or(HttpFailure{}).kind;
    }
    [[nodiscard]] int status() {
        static_cast<void>(failure());
        return status_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int status_ = 0;
    std::string body_;
    bool ended_ = false;
    std::optional<HttpFailure> failure_;
};

/// A loop with a pool on it. Tests call from their own thread.
class HttpPoolTest : public testing::Test {
  protected:
    ~HttpPoolTest() override {
        on_loop(loop_, [&] { pool_.reset(); });
        loop_.stop();
    }
    void connect_to(const std::string& url, HttpPoolOptions options = {}) {
        loop_.start();
        on_loop(loop_, [&] {
            auto pool =
                HttpPool::create(loop_, *parse_http_url(url), std::move(options), Clock::real());
            EXPECT_TRUE(pool.has_value()) << pool.error().message;
            pool_ = std::move(*pool);
        });
    }
    std::shared_ptr<Recorded> start(HttpCallRequest request) {
        auto handler = std::make_shared<Recorded>();
        start(std::move(request), handler);
        return handler;
    }
    void start(HttpCallRequest request, const std::shared_ptr<Recorded>& handler) {
        on_loop(loop_, [&] { call_ = pool_->start(std::move(request), handler); });
    }
    HttpPoolCounts counts() {
        return on_loop(loop_, [&] { return pool_->counts(); });
    }
    void cancel() {
        on_loop(loop_, [&] { call_->cancel(); });
    }

    runtime::Loop loop_{"pool"};
    std::unique_ptr<HttpPool> pool_;
    std::shared_ptr<HttpCall> call_;  ///< the last started
};

TEST_F(HttpPoolTest, SendsRequestsAndKeepsTheConnection) {
    ScriptedServer server([](ScriptedConnection& c) {
        for (std::string request; !(request = c.read_request()).empty();) c.answer(request);
    });
    connect_to(server.url() + "/base/", {.headers = {{"Authorization", "Bearer k"}}});
    const auto posted =
        start({.method = "POST", .path = "/p?q=1", .headers = {{"X-A", "b"}}, .body = "the body"});
    const std::string request = posted->body();
    EXPECT_THAT(request, StartsWith("POST /base/p?q=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
    EXPECT_THAT(request, HasSubstr("\r\nAuthorization: Bearer k\r\n"));
    EXPECT_THAT(request, HasSubstr("\r\nX-A: b\r\n"));
    EXPECT_TRUE(request.ends_with("\r\nContent-Length: 8\r\n\r\nthe body"));
    EXPECT_THAT(start({.path = "/g"})->body(), StartsWith("GET /base/g HTTP/1.1\r\n"));
    EXPECT_EQ(server.connections(), 1u);
    EXPECT_EQ(counts().reused, 1u);
}

TEST_F(HttpPoolTest, ACallStartedAtAnothersEndTakesItsConnection) {
    ScriptedServer server([](ScriptedConnection& c) {
        while (!c.read_request().empty()) c.answer("x");
    });
    connect_to(server.url());
    auto second = std::make_shared<Recorded>();
    auto first = std::make_shared<Recorded>();
    first->when_end = [&] { call_ = pool_->start({}, second); };
    start({}, first);
    EXPECT_EQ(second->body(), "x");
    EXPECT_EQ(server.connections(), 1u);
}

TEST_F(HttpPoolTest, HandsBodiesOverPieceByPiece) {
    std::promise<void> seen;
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        seen.get_future().wait();  // the second is written only once the first is there
        c.send("3\r\ntwo\r\n0\r\n\r\n");
        c.await_end();
    });
    connect_to(server.url());
    auto handler = std::make_shared<Recorded>();
    handler->when_body = [&](std::string_view piece) {
        if (piece == "one") seen.set_value();
    };
    start({}, handler);
    EXPECT_EQ(handler->body(), "onetwo");
    EXPECT_EQ(handler->status(), 200);
}

TEST_F(HttpPoolTest, TheEndOfTheConnectionMayEndABody) {
    ScriptedServer server([](ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    connect_to(server.url());
    EXPECT_EQ(start({})->body(), "until the end");
    EXPECT_EQ(counts().open, 0u);
}

TEST_F(HttpPoolTest, AnErrorStatusIsAWholeAnswer) {
    ScriptedServer server([](ScriptedConnection& c) {
        while (!c.read_request().empty()) c.answer("no", "503 Busy");
    });
    connect_to(server.url());
    const auto call = start({});
    EXPECT_EQ(call->body(), "no");
    EXPECT_EQ(call->status(), 503);
}

// ---- bounds

TEST_F(HttpPoolTest, CallsBeyondTheBoundWaitAndThenAreRefused) {
    std::promise<void> go;
    auto gone = go.get_future().share();
    ScriptedServer server([gone](ScriptedConnection& c) {
        while (!c.read_request().empty()) {
            gone.wait();
            c.answer("x");
        }
    });
    connect_to(server.url(), {.max_connections = 2, .max_waiting = 3});
    std::vector<std::shared_ptr<Recorded>> calls;
    for (int i = 0; i < 6; ++i) calls.push_back(start({}));
    EXPECT_EQ(calls[5]->kind(), Kind::kNotSent);
    EXPECT_EQ(calls[5]->failure()->error.code, ErrorCode::kOverloaded);
    const auto now = counts();
    EXPECT_EQ(now.open, 2u);
    EXPECT_EQ(now.waiting, 3u);
    EXPECT_EQ(now.refused, 1u);
    go.set_value();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(calls[static_cast<std::size_t>(i)]->body(), "x");
    EXPECT_EQ(server.connections(), 2u);
}

TEST_F(HttpPoolTest, AWaitingCallMayBeCancelledOrRunOutOfTime) {
    ScriptedServer server([](ScriptedConnection& c) { c.await_end(); });
    connect_to(server.url(), {.max_connections = 1});
    const auto running = start({});
    const auto late = start({.deadline = Deadline::after(Clock::real().now(), milliseconds(30))});
    const auto cancelled = start({});
    cancel();
    EXPECT_EQ(cancelled->kind(), Kind::kCancelled);
    EXPECT_EQ(late->kind(), Kind::kTimeout);
    EXPECT_EQ(counts().waiting, 0u);
    on_loop(loop_, [&] { pool_->stop(); });
    EXPECT_EQ(running->kind(), Kind::kCancelled);
    EXPECT_EQ(start({})->kind(), Kind::kNotSent);
}

TEST_F(HttpPoolTest, WhatCantBeWrittenIsNotSent) {
    ScriptedServer server([](ScriptedConnection& c) { c.await_end(); });
    connect_to(server.url());
    EXPECT_EQ(start({.method = "GE T"})->kind(), Kind::kNotSent);
    EXPECT_EQ(start({.path = "no slash"})->kind(), Kind::kNotSent);
    EXPECT_EQ(start({.path = "/a\r\nX: y"})->kind(), Kind::kNotSent);
    const auto call = start({.headers = {{"X", "a\r\nY: b"}}});
    EXPECT_EQ(call->kind(), Kind::kNotSent);
    EXPECT_EQ(call->failure()->error.code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(server.connections(), 0u);
}

// ---- hostile servers

TEST_F(HttpPoolTest, ARefusedConnectionIsNamed) {
    const RefusingPort port;
    connect_to(port.url());
    const auto call = start({});
    EXPECT_EQ(call->kind(), Kind::kConnect);
    EXPECT_EQ(call->failure()->error.code, ErrorCode::kUnavailable);
    EXPECT_THAT(call->failure()->error.message, HasSubstr("refused"));
}

TEST_F(HttpPoolTest, AResetBeforeTheAnswer) {
    ScriptedServer server([](ScriptedConnection& c) {
        c.read_request();
        c.reset();
    });
    connect_to(server.url());
    EXPECT_EQ(start({})->kind(), Kind::kLost);
    EXPECT_EQ(counts().stale_retries, 0u);
}

TEST(HttpPool, AnAnswerCutInTheMiddleIsDataLoss) {
    for (const char* begin :
         {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 200 O",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"}) {
        for (const bool reset : {false, true}) {
            std::promise<void> head;
            ScriptedServer server([&](ScriptedConnection& c) {
                c.read_request();
                c.send(begin);
                if (!reset) return;
                // A reset may overtake what was sent before it.
                head.get_future().wait();
                c.reset();
            });
            runtime::Loop loop("cut");
            loop.start();
            auto pool = on_loop(loop, [&] {
                return std::move(
                    *HttpPool::create(loop, *parse_http_url(server.url()), {}, Clock::real()));
            });
            auto handler = std::make_shared<Recorded>();
            handler->when_body = [&](std::string_view) { head.set_value(); };
            if (std::string_view(begin).size() < 20) head.set_value();
            on_loop(loop, [&] { static_cast<void>(pool->start({}, handler)); });
            const auto failure = handler->failure();
            ASSERT_TRUE(failure.has_value());
            if (std::string_view(begin).size() >= 20 || !reset) {
                EXPECT_EQ(failure->kind, Kind::kCutShort) << begin << failure->error.message;
                EXPECT_EQ(failure->error.code, ErrorCode::kDataLoss);
            }
            on_loop(loop, [&] { pool.reset(); });
            loop.stop();
        }
    }
}

TEST_F(HttpPoolTest, GarbageIsABadAnswer) {
    ScriptedServer server([](ScriptedConnection& c) {
        c.read_request();
        c.send("SSH-2.0-OpenSSH_9.2\r\n");
        c.await_end();
    });
    connect_to(server.url());
    const auto call = start({});
    EXPECT_EQ(call->kind(), Kind::kBadAnswer);
    EXPECT_THAT(call->failure()->error.message, HasSubstr("SSH-2.0"));
}

TEST_F(HttpPoolTest, SilenceRunsOut) {
    ScriptedServer server([](ScriptedConnection& c) {
        c.read_request();
        if (c.number() == 1) c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        c.await_end();
    });
    connect_to(server.url(), {.silence_timeout = milliseconds(30)});
    const auto mute = start({});
    EXPECT_EQ(mute->kind(), Kind::kTimeout);
    EXPECT_THAT(mute->failure()->error.message, HasSubstr("sent nothing for 30 ms"));
    EXPECT_EQ(start({})->kind(), Kind::kTimeout);
}

TEST_F(HttpPoolTest, TheDeadlineOfACallCountsThroughAStream) {
    ScriptedServer server([](ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.1 200 OK\r\n\r\n");
        while (c.send("x")) std::this_thread::sleep_for(milliseconds(1));
    });
    connect_to(server.url());
    const auto call = start({.deadline = Deadline::after(Clock::real().now(), milliseconds(60))});
    EXPECT_EQ(call->kind(), Kind::kTimeout);
    EXPECT_EQ(call->status(), 200);
}

TEST_F(HttpPoolTest, CancellingClosesTheConnection) {
    std::promise<void> left;
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.1 200 OK\r\n\r\none");
        c.await_end();
        left.set_value();
    });
    connect_to(server.url());
    auto handler = std::make_shared<Recorded>();
    handler->when_body = [&](std::string_view) {
        loop_.post([&] {  // call_ may not be there yet
            call_->cancel();
            call_->cancel();
        });
    };
    start({}, handler);
    EXPECT_EQ(handler->kind(), Kind::kCancelled);
    left.get_future().wait();
    EXPECT_EQ(counts().open, 0u);
}

// ---- kept connections

TEST_F(HttpPoolTest, AStaleConnectionCostsOneRetry) {
    std::promise<void> answered;
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.answer("first of this connection");
        if (c.number() == 0) {
            c.read_request();  // the second: closed without a byte, as if it had crossed the close
            return;
        }
        c.await_end();
    });
    connect_to(server.url());
    EXPECT_EQ(start({})->body(), "first of this connection");
    EXPECT_EQ(start({.method = "POST", .body = "again"})->body(), "first of this connection");
    EXPECT_EQ(counts().stale_retries, 1u);
    EXPECT_EQ(server.connections(), 2u);
}

TEST_F(HttpPoolTest, AConnectionInUseIsNotStale) {
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.answer("x");
        c.read_request();
    });
    connect_to(server.url(), {.stale_after = milliseconds(100'000)});
    EXPECT_EQ(start({})->body(), "x");
    EXPECT_EQ(start({})->kind(), Kind::kLost);
    EXPECT_EQ(server.connections(), 1u);
}

TEST_F(HttpPoolTest, NoRetryOnceAByteHasCome) {
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.answer("x");
        c.read_request();
        c.send("H");
    });
    connect_to(server.url());
    EXPECT_EQ(start({})->body(), "x");
    EXPECT_EQ(start({})->kind(), Kind::kCutShort);
    EXPECT_EQ(counts().stale_retries, 0u);
}

TEST_F(HttpPoolTest, BytesThatNobodyAskedForSpoilTheConnection) {
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n");
        c.await_end();
    });
    connect_to(server.url());
    EXPECT_EQ(start({})->body(), "x");
    EXPECT_EQ(start({})->body(), "x");
    EXPECT_EQ(server.connections(), 2u);
}

TEST_F(HttpPoolTest, IdleConnectionsAreClosed) {
    std::promise<void> left;
    ScriptedServer server([&](ScriptedConnection& c) {
        c.read_request();
        c.answer("x");
        c.await_end();
        left.set_value();
    });
    connect_to(server.url(), {.idle_timeout = milliseconds(20)});
    EXPECT_EQ(start({})->body(), "x");
    left.get_future().wait();
    EXPECT_EQ(counts().open, 0u);
}

// ---- our own server, other transports

class HttpPoolServerTest : public HttpServerTest {};

TEST_F(HttpPoolServerTest, ManyCallsAtOnce) {
    serve();
    runtime::Loop loop("many");
    loop.start();
    const std::string url = "http://127.0.0.1:" + std::to_string(port());
    auto pool = on_loop(loop, [&] {
        return std::move(
            *HttpPool::create(loop, *parse_http_url(url), {.max_connections = 20}, Clock::real()));
    });
    const std::string big(300'000, 'x');
    std::vector<std::shared_ptr<Recorded>> calls;
    on_loop(loop, [&] {
        for (int i = 0; i < 200; ++i) {
            calls.push_back(std::make_shared<Recorded>());
            static_cast<void>(pool->start({.method = "POST",
                                           .path = "/" + std::to_string(i),
                                           .body = i % 10 == 0 ? big : "b"},
                                          calls.back()));
        }
    });
    for (std::size_t i = 0; i < calls.size(); ++i) {
        EXPECT_EQ(calls[i]->body(), "POST /" + std::to_string(i) + " " + (i % 10 == 0 ? big : "b"));
    }
    on_loop(loop, [&] { pool.reset(); });
    loop.stop();
}

}  // namespace
}  // namespace stator::net
