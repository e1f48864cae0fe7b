#include "stator/media/fetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "stator/net/scripted_server.h"
#include "stator/net/tls_fixture.h"

namespace stator::media {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::atomic<bool> kNever{false};

/// One answer after the other.
class Answers final : public Resolver {
  public:
    explicit Answers(std::vector<std::string> addresses) : addresses_(std::move(addresses)) {}
    Result<std::vector<IpAddress>> resolve(const std::string&, std::chrono::nanoseconds) override {
        return std::vector<IpAddress>{*parse_ip_address(addresses_.at(asked_++))};
    }
    [[nodiscard]] std::size_t asked() const { return asked_; }

  private:
    std::vector<std::string> addresses_;
    std::size_t asked_ = 0;
};

FetchOptions local() {
    FetchOptions out;
    out.allow_http = true;
    out.allowed_addresses = {*parse_ip_address("127.0.0.1")};
    return out;
}

TEST(Fetcher, AsksOnceAndConnectsToWhatWasChecked) {
    std::string request;
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        request = c.read_request();
        c.answer("hello");
    });
    // A second question would be answered with what may not be reached.
    const auto dns = std::make_shared<Answers>(std::vector<std::string>{"127.0.0.1", "10.0.0.1"});
    const Fetcher fetcher(local(), dns, Clock::real());
    const std::string port = std::to_string(server.port());
    const auto body =
        fetcher.fetch("http://Rebind.example.org:" + port + "/p?q=1#f", Deadline::never(), kNever);
    ASSERT_TRUE(body) << body.error().message;
    EXPECT_EQ(*body, "hello");
    EXPECT_EQ(dns->asked(), 1U);
    EXPECT_THAT(request,
                StartsWith("GET /p?q=1 HTTP/1.1\r\nHost: rebind.example.org:" + port + "\r\n"));
    EXPECT_THAT(request, HasSubstr("Accept-Encoding: identity"));
    // The next fetch asks anew and is refused.
    const auto again =
        fetcher.fetch("http://rebind.example.org:" + port + "/", Deadline::never(), kNever);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ErrorCode::kPermissionDenied);
    EXPECT_EQ(server.connections(), 1U);
}

TEST(Fetcher, RedirectsAreLookedUpAndCheckedAgain) {
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n");
    });
    const auto dns = std::make_shared<Answers>(std::vector<std::string>{"127.0.0.1", "127.0.0.2"});
    FetchOptions options = local();
    options.max_redirects = 2;
    const Fetcher fetcher(options, dns, Clock::real());
    const auto body = fetcher.fetch("http://a.example.org:" + std::to_string(server.port()) + "/",
                                    Deadline::never(), kNever);
    ASSERT_FALSE(body);
    EXPECT_EQ(body.error().code, ErrorCode::kPermissionDenied);
    EXPECT_EQ(server.connections(), 1U);
}

TEST(Fetcher, TooSlowOnTheAverage) {
    net::ScriptedServer server([](net::ScriptedConnection& c) {
        c.read_request();
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc");
        c.await_end();
    });
    FetchOptions options = local();
    options.rate_after = std::chrono::milliseconds(50);
    const Fetcher fetcher(options, system_resolver(), Clock::real());
    const auto body = fetcher.fetch(server.url(), Deadline::never(), kNever);
    ASSERT_FALSE(body);
    EXPECT_EQ(body.error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_THAT(body.error().message, HasSubstr("4096 bytes a second"));
}

TEST(Fetcher, ACallerThatLeaves) {
    std::atomic<bool> left{false};
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        c.read_request();
        left.store(true);
        c.await_end();
    });
    const Fetcher fetcher(local(), system_resolver(), Clock::real());
    const auto body = fetcher.fetch(server.url(), Deadline::never(), left);
    ASSERT_FALSE(body);
    EXPECT_EQ(body.error().code, ErrorCode::kCancelled);
}

TEST(Fetcher, NobodyListens) {
    net::RefusingPort port;
    const Fetcher fetcher(local(), system_resolver(), Clock::real());
    const auto body = fetcher.fetch(port.url(), Deadline::never(), kNever);
    ASSERT_FALSE(body);
    EXPECT_EQ(body.error().code, ErrorCode::kUnavailable);
}

TEST(Redirect, WhatLocationsMean) {
    const MediaUrl from = *parse_media_url("https://a.example.org:8443/x/y?z");
    EXPECT_EQ(parse_redirect(from, "/b?c")->target, "/b?c");
    EXPECT_EQ(parse_redirect(from, "/b?c")->authority, "a.example.org:8443");
    EXPECT_EQ(parse_redirect(from, "//b.example.org/c")->host, "b.example.org");
    EXPECT_TRUE(parse_redirect(from, "//b.example.org/c")->tls);
    EXPECT_FALSE(parse_redirect(from, "http://b.example.org/c")->tls);
    EXPECT_FALSE(parse_redirect(from, "b"));
    EXPECT_FALSE(parse_redirect(from, "/b\\c"));
}

}  // namespace
}  // namespace stator::media
