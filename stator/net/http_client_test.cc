#include "stator/net/http_client.h"

#include <gmock/gmock.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "stator/net/http_fixture.h"

namespace stator::net {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

/// Accepts one connection, reads a request's head and lets the test answer with anything.
class OneShotServer {
  public:
    explicit OneShotServer(std::function<void(int fd)> answer)
        : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
        EXPECT_EQ(::listen(listener_, 1), 0);
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
        port_ = ntohs(address.sin_port);
        thread_ = std::thread([this, answer = std::move(answer)] {
            const int fd = ::accept(listener_, nullptr, nullptr);
            std::string head;
            char c = 0;
            while (!head.ends_with("\r\n\r\n") && ::recv(fd, &c, 1, 0) == 1) head += c;
            answer(fd);
            ::close(fd);
        });
    }
    ~OneShotServer() {
        thread_.join();
        ::close(listener_);
    }
    OneShotServer(const OneShotServer&) = delete;
    OneShotServer& operator=(const OneShotServer&) = delete;

    [[nodiscard]] std::string url() const {
        return "http://127.0.0.1:" + std::to_string(port_) + "/";
    }
    static void send(int fd, std::string_view bytes) {
        EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }
    /// Until the client closes.
    static void await_end(int fd) {
        char c = 0;
        while (::recv(fd, &c, 1, 0) > 0) {
        }
    }

  private:
    int listener_;
    std::uint16_t port_ = 0;
    std::thread thread_;
};

class HttpClientTest : public HttpServerTest {
  protected:
    [[nodiscard]] std::string url(const std::string& path) const {
        return "http://127.0.0.1:" + std::to_string(port()) + path;
    }
};

TEST_F(HttpClientTest, GetsAndPosts) {
    serve();
    auto got = http_request({.url = url("/a?b=c#fragment")});
    ASSERT_TRUE(got.has_value()) << got.error().message;
    EXPECT_EQ(got->status, 200);
    EXPECT_EQ(got->body, "GET /a?b=c ");
    EXPECT_EQ(got->header("CONTENT-TYPE"), "text/plain");
    EXPECT_EQ(got->header("absent"), "");
    const std::string big(3'000'000, 'x');
    auto posted = http_request({.method = "POST", .url = url("/p"), .body = big});
    ASSERT_TRUE(posted.has_value()) << posted.error().message;
    EXPECT_EQ(posted->body, "POST /p " + big);
    auto headed = http_request({.method = "HEAD", .url = url("/a")});
    ASSERT_TRUE(headed.has_value()) << headed.error().message;
    EXPECT_EQ(headed->body, "");
    EXPECT_EQ(headed->header("content-length"), "8");
}

TEST_F(HttpClientTest, SendsItsHeaders) {
    serve([](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->respond(200, "text/plain", exchange->request().header("authorization"));
    });
    const auto got = http_request({.url = url("/"), .headers = {{"Authorization", "Bearer x"}}});
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->body, "Bearer x");
}

TEST_F(HttpClientTest, ReadsStreamsPieceByPiece) {
    std::promise<std::shared_ptr<HttpExchange>> out;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->begin_stream(200, "text/event-stream");
        exchange->write("one");
        out.set_value(exchange);
    });
    auto future = out.get_future();
    std::vector<std::string> pieces;
    const auto got = http_request({.url = url("/")}, [&](std::string_view piece) {
        pieces.emplace_back(piece);
        if (piece == "one") {  // the second is written only once the first is here
            auto exchange = future.get();
            exchange->loop().post([exchange] {
                exchange->write("two");
                exchange->end_stream();
            });
        }
        return true;
    });
    ASSERT_TRUE(got.has_value()) << got.error().message;
    EXPECT_EQ(pieces, (std::vector<std::string>{"one", "two"}));
    EXPECT_EQ(got->body, "");
}

TEST_F(HttpClientTest, TheCallerMayEndAStream) {
    std::promise<void> left;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->on_disconnect([&left, exchange] { left.set_value(); });
        exchange->begin_stream(200, "text/plain");
        exchange->write("one");
    });
    const auto got = http_request({.url = url("/")}, [](std::string_view) { return false; });
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, ErrorCode::kCancelled);
    left.get_future().get();
}

TEST_F(HttpClientTest, ErrorAnswersAreNotStreamed) {
    serve([](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->respond(404, "text/plain", "no such thing");
    });
    const auto got = http_request({.url = url("/")}, [](std::string_view) {
        ADD_FAILURE();
        return true;
    });
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->status, 404);
    EXPECT_EQ(got->body, "no such thing");
}

TEST_F(HttpClientTest, ReadsTheRefusalOfABodyThatIsTooLong) {
    serve();
    const auto got =
        http_request({.method = "POST", .url = url("/"), .body = std::string(60'000'000, 'x')});
    ASSERT_TRUE(got.has_value()) << got.error().message;
    EXPECT_EQ(got->status, 413);
}

TEST_F(HttpClientTest, BoundsTheAnswer) {
    serve([](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->respond(200, "text/plain", std::string(1001, 'x'));
    });
    const auto got = http_request({.url = url("/"), .max_response_bytes = 1000});
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, ErrorCode::kTooLarge);
    EXPECT_TRUE(http_request({.url = url("/"), .max_response_bytes = 1001}).has_value());
}

TEST_F(HttpClientTest, AnAbortedStreamIsNotTakenForWhole) {
    serve([](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->begin_stream(200, "text/plain");
        exchange->write("half");
        exchange->loop().post(
            [exchange] { exchange->loop().at_turn_end([exchange] { exchange->abort(); }); });
    });
    const auto got = http_request({.url = url("/")});
    ASSERT_FALSE(got.has_value());
    EXPECT_TRUE(got.error().code == ErrorCode::kDataLoss ||
                got.error().code == ErrorCode::kUnavailable);
}

TEST(HttpClient, TellsACutAnswerFromNoAnswer) {
    {
        OneShotServer server([](int fd) {
            OneShotServer::send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        });
        const auto got = http_request({.url = server.url()});
        ASSERT_FALSE(got.has_value());
        EXPECT_EQ(got.error().code, ErrorCode::kDataLoss) << got.error().message;
    }
    {
        OneShotServer server([](int fd) {
            OneShotServer::send(
                fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        });
        std::string body;
        const auto got = http_request({.url = server.url()}, [&](std::string_view piece) {
            body += piece;
            return true;
        });
        ASSERT_FALSE(got.has_value());
        EXPECT_EQ(got.error().code, ErrorCode::kDataLoss) << got.error().message;
        EXPECT_EQ(body, "half");
    }
    {
        OneShotServer server([](int) {});
        const auto got = http_request({.url = server.url()});
        ASSERT_FALSE(got.has_value());
        EXPECT_EQ(got.error().code, ErrorCode::kUnavailable) << got.error().message;
    }
}

TEST(HttpClient, ReadsUntilCloseWhereThereIsNoLength) {
    OneShotServer server([](int fd) {
        OneShotServer::send(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nall of it");
    });
    const auto got = http_request({.url = server.url()});
    ASSERT_TRUE(got.has_value()) << got.error().message;
    EXPECT_EQ(got->body, "all of it");
}

TEST(HttpClient, GivesUpOnASilentServer) {
    OneShotServer server([](int fd) { OneShotServer::await_end(fd); });
    const auto got = http_request({.url = server.url(), .read_timeout = milliseconds(30)});
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, ErrorCode::kDeadlineExceeded) << got.error().message;
}

TEST(HttpClient, MayBeCancelledWhileItWaits) {
    OneShotServer server([](int fd) { OneShotServer::await_end(fd); });
    int asked = 0;
    const auto got =
        http_request({.url = server.url(), .cancelled = [&asked] { return ++asked == 2; }});
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, ErrorCode::kCancelled) << got.error().message;
    EXPECT_EQ(asked, 2);
}

TEST(HttpClient, SaysWhoIsNotThere) {
    // A port that was free a moment ago.
    std::string gone;
    {
        OneShotServer server([](int) {});
        gone = server.url();
        static_cast<void>(http_request({.url = gone}));
    }
    const auto got = http_request({.url = gone});
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, ErrorCode::kUnavailable);
    EXPECT_THAT(got.error().message, HasSubstr("127.0.0.1"));
}

TEST(HttpClient, RefusesWhatItCannotSend) {
    const std::vector<HttpClientRequest> wrong = {
        {.url = "https://a/"},
        {.url = "a/b"},
        {.url = ""},
        {.url = "http://"},
        {.url = "http:///x"},
        {.url = "http://a b/"},
        {.url = "http://a:99999/"},
        {.url = "http://u@a/"},
        {.url = "http://a/\r\nX: y"},
        {.method = "GE T", .url = "http://a/"},
        {.url = "http://a/", .headers = {{"X", "a\r\nY: b"}}},
        {.url = "http://a/", .headers = {{"X Y", "a"}}},
    };
    for (const auto& request : wrong) {
        const auto got = http_request(request);
        ASSERT_FALSE(got.has_value()) << request.url;
        EXPECT_EQ(got.error().code, ErrorCode::kInvalidArgument) << request.url;
        EXPECT_FALSE(got.error().message.empty());
    }
}

TEST(HttpClientCancelTest, WaitingForAnAnswerEndsWhenAsked) {
    OneShotServer server(OneShotServer::await_end);
    int asked = 0;
    const auto answer =
        http_request({.url = server.url(), .cancelled = [&] { return ++asked == 2; }});
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace stator::net
