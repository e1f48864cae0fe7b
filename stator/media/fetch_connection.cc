#include "stator/media/fetch_connection.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace stator::media {
namespace {

constexpr std::size_t kPiece = 64 * 1024;
constexpr int kAskPeriod_ms = 50;  // how soon cancelling counts

tl::unexpected<Error> no_connection() {
    return error(ErrorCode::kUnavailable, "the URL's server can't be reached");
}
tl::unexpected<Error> cut_short() {
    return error(ErrorCode::kDataLoss, "the URL's server closed the connection in the middle");
}

socklen_t fill(sockaddr_storage& out, const IpAddress& address, std::uint16_t port) {
    if (address.v6) {
        auto* in = reinterpret_cast<sockaddr_in6*>(&out);
        in->sin6_family = AF_INET6;
        in->sin6_port = htons(port);
        std::memcpy(&in->sin6_addr, address.bytes.data(), 16);
        return sizeof *in;
    }
    auto* in = reinterpret_cast<sockaddr_in*>(&out);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    std::memcpy(&in->sin_addr, address.bytes.data(), 4);
    return sizeof *in;
}

}  // namespace

Result<void> FetchConnection::wait(short events, Deadline deadline) const {
    for (;;) {
        if (cancelled_.load(std::memory_order_relaxed)) {
            return error(ErrorCode::kCancelled, "the client left");
        }
        const TimePoint now = clock_.now();
        if (deadline.reached(now)) {
            return error(ErrorCode::kDeadlineExceeded, "the URL's server is too slow");
        }
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline.left(now)).count();
        pollfd what{.fd = socket_->get(), .events = events, .revents = 0};
        const int timeout = static_cast<int>(std::clamp<std::int64_t>(left, 1, kAskPeriod_ms));
        if (::poll(&what, 1, timeout) > 0) return {};
    }
}

Result<void> FetchConnection::connect(const IpAddress& address, std::uint16_t port,
                                      Deadline deadline) {
    sockaddr_storage to{};
    const socklen_t size = fill(to, address, port);
    const int fd = ::socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return no_connection();
    socket_.emplace(fd);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), size) == 0) return {};
    if (errno != EINPROGRESS) return no_connection();
    if (auto ready = wait(POLLOUT, deadline); !ready) return ready;
    int reason = 0;
    socklen_t length = sizeof reason;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &length) != 0 || reason != 0) {
        return no_connection();
    }
    return {};
}

Result<void> FetchConnection::send_raw(std::string_view bytes, Deadline deadline) const {
    while (!bytes.empty()) {
        const ssize_t n = ::send(socket_->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n > 0) {
            bytes.remove_prefix(static_cast<std::size_t>(n));
        } else if (errno == EAGAIN || errno == EINTR) {
            if (auto ready = wait(POLLOUT, deadline); !ready) return ready;
        } else {
            return cut_short();
        }
    }
    return {};
}

Result<std::size_t> FetchConnection::receive_raw(Deadline deadline) {
    buffer_.resize(kPiece);
    for (;;) {
        if (auto ready = wait(POLLIN, deadline); !ready) {
            return tl::unexpected<Error>(std::move(ready.error()));
        }
        const ssize_t n = ::recv(socket_->get(), buffer_.data(), buffer_.size(), 0);
        if (n >= 0) return static_cast<std::size_t>(n);
        if (errno != EAGAIN && errno != EINTR) return cut_short();
    }
}

Result<void> FetchConnection::begin_tls(std::shared_ptr<const net::TlsContext> context,
                                        std::string_view host, Deadline deadline) {
    tls_.emplace(std::move(context), host);
    std::string plain;
    std::string cipher;
    auto stepped = tls_->receive({}, plain, cipher);
    while (true) {
        if (!stepped) {
            return error(ErrorCode::kUnavailable,
                         "the URL's server can't be trusted: its certificate or TLS is wrong");
        }
        if (auto sent = send_raw(cipher, deadline); !sent) return sent;
        cipher.clear();
        if (tls_->ready()) return {};
        const auto n = receive_raw(deadline);
        if (!n) return tl::unexpected<Error>(n.error());
        if (*n == 0 || *stepped) return cut_short();
        stepped = tls_->receive({buffer_.data(), *n}, plain, cipher);
    }
}

Result<void> FetchConnection::send(std::string_view bytes, Deadline deadline) {
    if (!tls_) return send_raw(bytes, deadline);
    std::string cipher;
    if (auto sealed = tls_->send(bytes, cipher); !sealed) return sealed;
    return send_raw(cipher, deadline);
}

Result<void> FetchConnection::receive(std::string& out, bool& in_order, Deadline deadline) {
    out.clear();
    in_order = false;
    while (!ended_) {
        const auto n = receive_raw(deadline);
        if (!n) return tl::unexpected<Error>(n.error());
        ended_ = *n == 0;
        if (!tls_) {
            in_order = ended_;
            out.assign(buffer_, 0, *n);
            return {};
        }
        if (ended_) break;
        std::string cipher;
        const auto closed = tls_->receive({buffer_.data(), *n}, out, cipher);
        if (!closed) return cut_short();
        if (auto sent = send_raw(cipher, deadline); !sent && !*closed) return sent;
        in_order = ended_ = *closed;
        if (!out.empty()) return {};
    }
    return {};
}

}  // namespace stator::media
