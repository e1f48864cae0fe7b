#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "stator/base/clock.h"
#include "stator/net/http_server.h"
#include "stator/runtime/loop.h"

namespace stator::net {

/// A blocking socket that sends exactly what it is told. Waits are bounded, so that a test fails
/// instead of hanging.
class RawClient {
  public:
    explicit RawClient(std::uint16_t port, int receive_buffer = 0)
        : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        if (receive_buffer != 0) {
            ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        }
        const timeval limit{.tv_sec = 20, .tv_usec = 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        connected_ =
            ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    }
    ~RawClient() { close(); }
    RawClient(const RawClient&) = delete;
    RawClient& operator=(const RawClient&) = delete;

    [[nodiscard]] bool connected() const { return connected_; }

    /// False where the server does not take it all.
    bool send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
        return true;
    }

    /// One recv() appended to what came before; false at the end of the connection.
    bool receive() {
        char piece[16 * 1024];
        const ssize_t n = ::recv(fd_, piece, sizeof piece, 0);
        if (n > 0) received_.append(piece, static_cast<std::size_t>(n));
        was_reset_ = n < 0 && errno == ECONNRESET;
        timed_out_ = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
        return n > 0;
    }
    /// Everything up to the end of the connection.
    std::string read_all() {
        while (receive()) {
        }
        return std::exchange(received_, {});
    }
    /// Up to and with `mark`; what comes behind it is kept.
    std::string read_through(std::string_view mark) {
        while (!received_.contains(mark)) {
            if (!receive()) return std::exchange(received_, {});
        }
        const auto end = received_.find(mark) + mark.size();
        std::string out = received_.substr(0, end);
        received_.erase(0, end);
        return out;
    }
    std::string read_bytes(std::size_t count) {
        while (received_.size() < count && receive()) {
        }
        std::string out = received_.substr(0, count);
        received_.erase(0, std::min(count, received_.size()));
        return out;
    }
    /// One answer with Content-Length: its head, then its body.
    std::pair<std::string, std::string> read_answer() {
        std::string head = read_through("\r\n\r\n");
        constexpr std::string_view kLength = "Content-Length: ";
        const auto at = head.find(kLength);
        if (at == std::string::npos) return {head, ""};
        return {head, read_bytes(std::stoul(head.substr(at + kLength.size())))};
    }

    void end_sending() { ::shutdown(fd_, SHUT_WR); }
    void close() {
        if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }
    /// Closes with a reset.
    void reset() {
        const linger now{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close();
    }
    /// Waits for bytes or the end of the connection; false where neither comes in time.
    bool wait_readable(std::chrono::milliseconds limit) {
        pollfd ready{.fd = fd_, .events = POLLIN, .revents = 0};
        return ::poll(&ready, 1, static_cast<int>(limit.count())) > 0;
    }
    [[nodiscard]] bool was_reset() const { return was_reset_; }
    [[nodiscard]] bool timed_out() const { return timed_out_; }

  private:
    int fd_;
    bool connected_ = false;
    bool was_reset_ = false;
    bool timed_out_ = false;
    std::string received_;
};

inline int status_of(std::string_view answer) {
    constexpr std::string_view kVersion = "HTTP/1.1 ";
    if (!answer.starts_with(kVersion)) return 0;
    return std::stoi(std::string(answer.substr(kVersion.size(), 3)));
}

/// A server on two loops. Without a handler of the test's own it answers with method, target and
/// body, and "/stream" with a chunk per letter of the query.
class HttpServerTest : public testing::Test {
  protected:
    void SetUp() override {
        pool_ = std::make_unique<runtime::LoopPool>(2, "test");
        pool_->start();
    }
    void TearDown() override {
        if (server_) server_->stop(Deadline::at(Clock::real().now()));
        server_.reset();
        pool_->stop();
    }

    void serve(HttpHandler handler = echo, HttpLimits limits = {}) {
        server_ = std::make_unique<HttpServer>(*pool_, limits, std::move(handler), error_body);
        const auto listening = server_->listen("127.0.0.1", 0);
        ASSERT_TRUE(listening.has_value()) << listening.error().message;
        ASSERT_NE(server_->port(), 0);
    }
    [[nodiscard]] std::uint16_t port() const { return server_->port(); }

    static void echo(const std::shared_ptr<HttpExchange>& exchange) {
        const HttpRequest& request = exchange->request();
        if (request.path == "/stream") {
            exchange->begin_stream(200, "text/plain");
            for (const char c : request.target.substr(request.path.size() + 1)) {
                exchange->write({&c, 1});
            }
            exchange->end_stream();
            return;
        }
        const std::string text = request.method + " " + request.target + " ";
        exchange->respond(200, "text/plain", text + exchange->take_body());
    }
    static std::pair<std::string, std::string> error_body(int status, std::string_view message) {
        return {"text/plain", "error " + std::to_string(status) + ": " + std::string(message)};
    }

    std::unique_ptr<runtime::LoopPool> pool_;
    std::unique_ptr<HttpServer> server_;
};

}  // namespace stator::net
