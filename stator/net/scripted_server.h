#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace stator::net {

/// For tests of clients: what a server does with one connection, step by step and without manners.
/// Waits are bounded, so that a test fails instead of hanging.
class ScriptedConnection {
  public:
    ScriptedConnection(int fd, std::size_t number) : fd_(fd), number_(number) {
        const timeval limit{.tv_sec = 20, .tv_usec = 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    ~ScriptedConnection() { close(); }
    ScriptedConnection(const ScriptedConnection&) = delete;
    ScriptedConnection& operator=(const ScriptedConnection&) = delete;

    /// 0 for the first that came.
    [[nodiscard]] std::size_t number() const { return number_; }

    /// The next request, head and body; empty once the client has left.
    std::string read_request() {
        std::string text;
        while (!text.ends_with("\r\n\r\n")) {
            if (!read_one(text)) return {};
        }
        std::size_t length = 0;
        if (const auto at = text.find("Content-Length: "); at != std::string::npos) {
            length = std::stoul(text.substr(at + 16));
        }
        for (; length > 0; --length) {
            if (!read_one(text)) return {};
        }
        return text;
    }
    bool send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) return false;
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
        return true;
    }
    /// "HTTP/1.1 200 OK" with a length.
    bool answer(std::string_view body, std::string_view status = "200 OK") {
        return send("HTTP/1.1 " + std::string(status) + "\r\nContent-Length: " +
                    std::to_string(body.size()) + "\r\n\r\n" + std::string(body));
    }
    /// Until the client leaves.
    void await_end() {
        std::string ignored;
        while (read_one(ignored)) ignored.clear();
    }
    void reset() {
        const linger now{.l_onoff = 1, .l_linger = 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close();
    }
    /// From the server's thread: waiting for the client ends.
    void interrupt() {
        const std::scoped_lock lock(mutex_);
        if (fd_ >= 0) ::shutdown(fd_, SHUT_RD);
    }
    void close() {
        const std::scoped_lock lock(mutex_);
        if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }

  private:
    bool read_one(std::string& text) {
        char c = 0;
        if (::recv(fd_, &c, 1, 0) != 1) return false;
        text += c;
        return true;
    }
    std::mutex mutex_;  // of closing
    int fd_;
    std::size_t number_;
};

/// A listening socket on loopback that runs `script` for each connection, on a thread of its own.
/// When it returns, the connection is closed. At the server's end clients seem to have left.
class ScriptedServer {
  public:
    using Script = std::function<void(ScriptedConnection&)>;

    explicit ScriptedServer(Script script)
        : script_(std::move(script)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
        EXPECT_EQ(::listen(listener_, 128), 0);
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
        port_ = ntohs(address.sin_port);
        acceptor_ = std::thread([this] { accept_all(); });
    }
    ~ScriptedServer() {
        stop_listening();
        for (auto& connection : connections_) connection.interrupt();
        for (auto& thread : threads_) thread.join();
    }
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;

    /// From then on connections are refused.
    void stop_listening() {
        if (stopped_.exchange(true)) return;
        ::shutdown(listener_, SHUT_RDWR);
        acceptor_.join();
        ::close(listener_);
    }
    [[nodiscard]] std::uint16_t port() const { return port_; }
    [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
    [[nodiscard]] std::size_t connections() const { return accepted_; }

  private:
    void accept_all() {
        while (true) {
            const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (fd < 0) return;
            const std::size_t number = accepted_++;
            ScriptedConnection& connection = connections_.emplace_back(fd, number);
            threads_.emplace_back([this, &connection] {
                script_(connection);
                connection.close();
            });
        }
    }
    Script script_;
    int listener_;
    std::uint16_t port_ = 0;
    std::atomic<bool> stopped_{false};
    std::atomic<std::size_t> accepted_{0};
    // Of the acceptor until it has ended.
    std::list<ScriptedConnection> connections_;
    std::list<std::thread> threads_;
    std::thread acceptor_;
};

/// A port of loopback on which nobody listens, for as long as this lives.
class RefusingPort {
  public:
    RefusingPort() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), length), 0);
        ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length);
        port_ = ntohs(address.sin_port);
    }
    ~RefusingPort() { ::close(fd_); }
    RefusingPort(const RefusingPort&) = delete;
    RefusingPort& operator=(const RefusingPort&) = delete;
    [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  private:
    int fd_;  // bound, never listening
    std::uint16_t port_ = 0;
};

}  // namespace stator::net
