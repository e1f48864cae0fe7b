#include "stator/net/http_server.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "stator/net/http_fixture.h"

namespace stator::net {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const std::string kGet = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

std::string post(const std::string& body, const std::string& headers = "") {
    return "POST /p HTTP/1.1\r\nHost: x\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST_F(HttpServerTest, AnswersWithLengthAndDate) {
    serve();
    RawClient client(port());
    client.send(post("hello"));
    const auto [head, body] = client.read_answer();
    EXPECT_THAT(head, StartsWith("HTTP/1.1 200 OK\r\nDate: "));
    EXPECT_THAT(head, HasSubstr(" GMT\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n"));
    EXPECT_EQ(body, "POST /p hello");
}

TEST_F(HttpServerTest, KeepsTheConnection) {
    serve();
    RawClient client(port());
    for (int i = 0; i < 100; ++i) {
        client.send(post(std::to_string(i)));
        EXPECT_EQ(client.read_answer().second, "POST /p " + std::to_string(i));
    }
    const auto stats = server_->stats();
    EXPECT_EQ(stats.connections_accepted, 1U);
    EXPECT_EQ(stats.connections_open, 1U);
    EXPECT_EQ(stats.requests, 100U);
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
    serve();
    RawClient client(port());
    std::string all;
    for (int i = 0; i < 2000; ++i) all += post(std::to_string(i));
    std::thread sender([&] { client.send(all); });
    for (int i = 0; i < 2000; ++i) {
        ASSERT_EQ(client.read_answer().second, "POST /p " + std::to_string(i));
    }
    sender.join();
}

TEST_F(HttpServerTest, PipelinedRequestsWaitForASlowAnswer) {
    std::promise<std::shared_ptr<HttpExchange>> first;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        if (exchange->request().path == "/slow") {
            first.set_value(exchange);
        } else {
            echo(exchange);
        }
    });
    RawClient client(port());
    client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + kGet + kGet);
    auto slow = first.get_future().get();
    slow->loop().post([slow] { slow->respond(200, "text/plain", "slow"); });
    slow.reset();
    EXPECT_EQ(client.read_answer().second, "slow");
    EXPECT_EQ(client.read_answer().second, "GET /a ");
    EXPECT_EQ(client.read_answer().second, "GET /a ");
}

TEST_F(HttpServerTest, ClosesWhenAsked) {
    serve();
    RawClient client(port());
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + kGet);
    const std::string all = client.read_all();
    EXPECT_THAT(all, HasSubstr("\r\nConnection: close\r\n"));
    EXPECT_THAT(all, EndsWith("GET / ")) << "the request behind it must not be answered";
    EXPECT_FALSE(client.was_reset());
}

TEST_F(HttpServerTest, SpeaksHttp10) {
    serve();
    RawClient client(port());
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_THAT(client.read_answer().first, HasSubstr("\r\nConnection: keep-alive\r\n"));
    client.send("GET / HTTP/1.0\r\n\r\n");
    const std::string all = client.read_all();
    EXPECT_THAT(all, HasSubstr("\r\nConnection: close\r\n"));
    EXPECT_THAT(all, EndsWith("\r\n\r\nGET / "));
}

TEST_F(HttpServerTest, StreamsInChunks) {
    serve();
    RawClient client(port());
    client.send("GET /stream?abc HTTP/1.1\r\nHost: x\r\n\r\n" + kGet);
    const std::string head = client.read_through("\r\n\r\n");
    EXPECT_THAT(head, HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
    EXPECT_THAT(head, Not(HasSubstr("Content-Length")));
    EXPECT_EQ(client.read_through("0\r\n\r\n"), "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n");
    EXPECT_EQ(client.read_answer().second, "GET /a ");
}

TEST_F(HttpServerTest, StreamsUntilCloseOnHttp10) {
    serve();
    RawClient client(port());
    client.send("GET /stream?abc HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const std::string all = client.read_all();
    EXPECT_THAT(all, HasSubstr("\r\nConnection: close\r\n"));
    EXPECT_THAT(all, EndsWith("\r\n\r\nabc"));
}

TEST_F(HttpServerTest, HeadHasTheLengthOfGetAndNoBody) {
    serve();
    RawClient client(port());
    client.send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /stream?abc HTTP/1.1\r\nHost: x\r\n\r\n" +
                kGet);
    EXPECT_THAT(client.read_through("\r\n\r\n"), HasSubstr("\r\nContent-Length: 8\r\n"));
    EXPECT_THAT(client.read_through("\r\n\r\n"), HasSubstr("\r\nTransfer-Encoding: chunked\r\n"));
    EXPECT_EQ(client.read_answer().second, "GET /a ");
}

TEST_F(HttpServerTest, NoContentHasNeitherBodyNorLength) {
    serve([](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->add_header("Access-Control-Max-Age", "60");
        exchange->respond(204, "text/plain", "nothing");
    });
    RawClient client(port());
    client.send(kGet + kGet);
    for (int i = 0; i < 2; ++i) {
        const std::string head = client.read_through("\r\n\r\n");
        EXPECT_THAT(head, StartsWith("HTTP/1.1 204 No Content\r\n"));
        EXPECT_THAT(head, HasSubstr("\r\nAccess-Control-Max-Age: 60\r\n"));
        EXPECT_THAT(head, Not(HasSubstr("Content-")));
    }
}

TEST_F(HttpServerTest, TellsAWaitingClientToGoOn) {
    serve();
    RawClient client(port());
    client.send("POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    EXPECT_EQ(client.read_through("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi");
    EXPECT_EQ(client.read_answer().second, "POST /p hi");
    client.send(post("already here", "Expect: 100-continue\r\n"));
    EXPECT_EQ(status_of(client.read_answer().first), 200);
}

TEST_F(HttpServerTest, TakesChunkedBodies) {
    serve();
    RawClient client(port());
    client.send(
        "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n" +
        kGet);
    EXPECT_EQ(client.read_answer().second, "POST /p abcde");
    EXPECT_EQ(client.read_answer().second, "GET /a ");
}

TEST_F(HttpServerTest, RefusalEndsTheConnectionAndWhatFollowsIsNoRequest) {
    std::atomic<int> handled{0};
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        ++handled;
        echo(exchange);
    });
    const struct {
        std::string bytes;
        int status;
    } cases[] = {
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\n" +
             kGet,
         400},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n" + kGet,
         400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" + kGet, 501},
        {"GET / HTTP/1.1\r\nHost: x\r\nX: y\n\r\n" + kGet, 400},
        {"GET / HTTP/1.1\r\n\r\n" + kGet, 400},
        {"GET / HTTP/3.0\r\nHost: x\r\n\r\n" + kGet, 505},
        {"nonsense\r\n\r\n" + kGet, 400},
        {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + kGet, 400},
    };
    for (const auto& c : cases) {
        RawClient client(port());
        client.send(c.bytes);
        const auto [head, body] = client.read_answer();
        EXPECT_EQ(status_of(head), c.status) << c.bytes;
        EXPECT_THAT(head, HasSubstr("\r\nConnection: close\r\n"));
        EXPECT_THAT(body, StartsWith("error " + std::to_string(c.status) + ": "));
        EXPECT_EQ(client.read_all(), "") << c.bytes;
        EXPECT_FALSE(client.was_reset()) << c.bytes;
    }
    EXPECT_EQ(handled.load(), 0);
    EXPECT_EQ(server_->stats().protocol_errors, std::size(cases));
}

TEST_F(HttpServerTest, WhatIsWrittenInOneTurnLeavesInOneSend) {
    std::promise<void> complete;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->on_complete([&](int, std::uint64_t) { complete.set_value(); });
        exchange->begin_stream(200, "text/event-stream");
        for (int i = 0; i < 8; ++i) exchange->write("data: x\n\n");
        exchange->end_stream();
    });
    RawClient client(port());
    client.send(kGet);
    client.read_through("0\r\n\r\n");
    complete.get_future().get();
    EXPECT_EQ(server_->stats().sends, 1U);
}

TEST_F(HttpServerTest, TellsWhenTheAnswerIsSent) {
    std::promise<std::pair<int, std::uint64_t>> whole;
    std::promise<std::pair<int, std::uint64_t>> streamed;
    std::atomic<int> lost{0};
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->on_disconnect([&] { ++lost; });
        if (exchange->request().path == "/stream") {
            echo(exchange);  // set behind the answer: still in time
            exchange->on_complete(
                [&](int status, std::uint64_t n) { streamed.set_value({status, n}); });
        } else {
            exchange->on_complete(
                [&](int status, std::uint64_t n) { whole.set_value({status, n}); });
            exchange->respond(418, "text/plain", "teapot");
        }
    });
    {
        RawClient client(port());
        client.send(kGet + "GET /stream?abcd HTTP/1.1\r\nHost: x\r\n\r\n");
        EXPECT_EQ(whole.get_future().get(), std::pair(418, std::uint64_t{6}));
        EXPECT_EQ(streamed.get_future().get(), std::pair(200, std::uint64_t{4}));
    }
    server_->stop(Deadline::never());
    EXPECT_EQ(lost.load(), 0);
}

TEST_F(HttpServerTest, SeesClientsLeaveWhileTheyWait) {
    struct Round {
        std::shared_ptr<HttpExchange> kept;
        std::promise<void> held;
        std::promise<bool> left;
    };
    std::vector<Round> rounds(3);
    std::atomic<std::size_t> next{0};
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        Round& round = rounds[next++];
        round.kept = exchange;
        exchange->on_complete([](int, std::uint64_t) { FAIL(); });
        exchange->on_disconnect([&round] {
            const auto gone = std::move(round.kept);
            gone->write("for nobody");  // does nothing now
            round.left.set_value(gone->disconnected());
        });
        exchange->begin_stream(200, "text/plain");
        exchange->write("x");
        round.held.set_value();
    });
    for (std::size_t how = 0; how < rounds.size(); ++how) {
        RawClient client(port());
        client.send(kGet);
        rounds[how].held.get_future().get();
        client.read_through("1\r\nx\r\n");
        if (how == 0) client.close();
        if (how == 1) client.reset();
        if (how == 2) client.end_sending();
        EXPECT_TRUE(rounds[how].left.get_future().get()) << how;
    }
    server_->stop(Deadline::never());
}

TEST_F(HttpServerTest, HalfClosedClientStillGetsAWholeAnswer) {
    const std::string big(3'000'000, 'x');
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->respond(200, "text/plain", big);
    });
    RawClient client(port(), 8 * 1024);
    client.send(kGet);
    client.end_sending();
    const std::string all = client.read_all();
    EXPECT_TRUE(all.ends_with(big));
    EXPECT_FALSE(client.was_reset());
}

TEST_F(HttpServerTest, AbortResetsSoThatNobodyTakesItForWhole) {
    std::atomic<int> called{0};
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->on_disconnect([&] { ++called; });
        exchange->on_complete([&](int, std::uint64_t) { ++called; });
        exchange->begin_stream(200, "text/plain");
        exchange->write("half an ans");
        // In a later turn, so that the first part is out.
        exchange->loop().post(
            [exchange] { exchange->loop().at_turn_end([exchange] { exchange->abort(); }); });
    });
    for (const char* version : {"1.1", "1.0"}) {
        RawClient client(port());
        client.send(std::string("GET / HTTP/") + version + "\r\nHost: x\r\n\r\n");
        const std::string all = client.read_all();
        EXPECT_TRUE(client.was_reset()) << version;
        EXPECT_THAT(all, Not(HasSubstr("0\r\n\r\n")));
    }
    server_->stop(Deadline::never());
    EXPECT_EQ(called.load(), 0);
}

TEST_F(HttpServerTest, AForgottenRequestIsReset) {
    serve([](const std::shared_ptr<HttpExchange>&) {});
    RawClient client(port());
    client.send(kGet);
    EXPECT_EQ(client.read_all(), "");
    EXPECT_TRUE(client.was_reset());
}

TEST_F(HttpServerTest, TheLastReferenceMayGoOnAnotherThread) {
    std::promise<std::shared_ptr<HttpExchange>> out;
    serve([&](std::shared_ptr<HttpExchange> exchange) { out.set_value(std::move(exchange)); });
    RawClient client(port());
    client.send(post("body"));
    out.get_future().get().reset();
    EXPECT_EQ(client.read_all(), "");
    EXPECT_TRUE(client.was_reset());
}

TEST_F(HttpServerTest, GivesTheHandlerTheWholeRequest) {
    std::promise<HttpRequest> seen;
    const TimePoint before = Clock::real().now();
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        seen.set_value(exchange->request());
        exchange->respond(200, "", "");
    });
    RawClient client(port());
    client.send("PUT /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-Two: 1\r\nx-two: 2\r\n\r\n");
    EXPECT_EQ(status_of(client.read_answer().first), 200);
    const HttpRequest request = seen.get_future().get();
    EXPECT_EQ(request.method, "PUT");
    EXPECT_EQ(request.target, "/a%20b?c=d");
    EXPECT_EQ(request.path, "/a%20b");
    EXPECT_EQ(request.header("x-TWO"), "1");
    EXPECT_EQ(request.header("absent"), "");
    EXPECT_EQ(request.headers.size(), 3U);
    EXPECT_THAT(request.peer, StartsWith("127.0.0.1:"));
    EXPECT_TRUE(request.keep_alive);
    EXPECT_GE(request.received, before);
    EXPECT_LE(request.received, Clock::real().now());
}

TEST_F(HttpServerTest, SpreadsConnectionsOverTheLoops) {
    std::mutex mutex;
    std::vector<runtime::Loop*> seen;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        {
            const std::scoped_lock lock(mutex);
            seen.push_back(&exchange->loop());
        }
        echo(exchange);
    });
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 8; ++i) {
        clients.push_back(std::make_unique<RawClient>(port()));
        clients.back()->send(kGet);
        clients.back()->read_answer();
    }
    EXPECT_EQ(std::ranges::count(seen, &pool_->at(0)), 4);
    EXPECT_EQ(std::ranges::count(seen, &pool_->at(1)), 4);
}

TEST_F(HttpServerTest, ListensOnNamesAndSaysWhyNot) {
    serve();
    HttpServer other(*pool_, {}, echo, error_body);
    const auto taken = other.listen("127.0.0.1", port());
    ASSERT_FALSE(taken.has_value());
    EXPECT_EQ(taken.error().code, ErrorCode::kUnavailable);
    EXPECT_THAT(taken.error().message, HasSubstr(std::to_string(port())));
    EXPECT_THAT(taken.error().message, HasSubstr("in use"));
    const auto foreign = other.listen("192.0.2.1", 0);
    ASSERT_FALSE(foreign.has_value());
    EXPECT_EQ(foreign.error().code, ErrorCode::kUnavailable);
    const auto nonsense = other.listen("not a host", 0);
    ASSERT_FALSE(nonsense.has_value());
    EXPECT_EQ(nonsense.error().code, ErrorCode::kInvalidArgument);
    ASSERT_TRUE(other.listen("localhost", 0).has_value());
    RawClient client(other.port());
    client.send(kGet);
    EXPECT_EQ(client.read_answer().second, "GET /a ");
}

}  // namespace
}  // namespace stator::net
