#include "stator/net/stream_dial.h"

#include <sys/socket.h>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>
#include <chrono>
#include <utility>

#include "stator/net/posix_socket.h"

namespace stator::net {
namespace {

namespace asio = boost::asio;

constexpr std::size_t kMaxEndpoints = 16;
constexpr std::size_t kMaxUnixPath = 107;
// A Unix listener whose queue is full answers EAGAIN, and nothing tells when there is room.
constexpr std::chrono::milliseconds kRetry{10};

/// A socket that connects to a free port of its own machine may be given that very port, and then
/// it is connected to itself.
bool connected_to_itself(int fd) {
    sockaddr_storage own{};
    sockaddr_storage peer{};
    socklen_t own_length = sizeof own;
    socklen_t peer_length = sizeof peer;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_length) != 0 ||
        ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_length) != 0 ||
        own.ss_family == AF_UNIX) {
        return false;
    }
    return printed(own, own_length) == printed(peer, peer_length);
}

}  // namespace

StreamDial::StreamDial(asio::io_context& io, SocketAddress address, Done done)
    : io_(io),
      address_(std::move(address)),
      done_(std::move(done)),
      resolver_(io.get_executor()),
      socket_(io.get_executor()) {}

void StreamDial::start() {
    if (!done_) return;
    if (address_.kind == SocketAddress::Kind::kUnix) {
        if (address_.path.empty() || address_.path.size() > kMaxUnixPath) {
            fail("its path is empty or too long");
            return;
        }
        endpoints_.emplace_back(asio::local::stream_protocol::endpoint(address_.path));
        try_next();
        return;
    }
    boost::system::error_code ec;
    const auto numeric = asio::ip::make_address(address_.host, ec);
    if (ec) {
        resolve();
        return;
    }
    endpoints_.emplace_back(asio::ip::tcp::endpoint(numeric, address_.port));
    try_next();
}

void StreamDial::resolve() {
    resolver_.async_resolve(
        address_.host, std::to_string(address_.port), asio::ip::resolver_base::numeric_service,
        [self = shared_from_this()](const boost::system::error_code& ec, const auto& results) {
            if (!self->done_) return;
            if (ec) {
                self->fail("the name can't be resolved: " + ec.message());
                return;
            }
            for (const auto& entry : results) {
                if (self->endpoints_.size() < kMaxEndpoints) {
                    self->endpoints_.emplace_back(entry.endpoint());
                }
            }
            self->try_next();
        });
}

void StreamDial::try_next() {
    while (next_ < endpoints_.size()) {
        bool waiting = false;
        const int reason = begin_connect(endpoints_[next_], waiting);
        if (reason == 0) {
            if (waiting) {
                wait_connected();
            } else {
                succeed();
            }
            return;
        }
        if (reason == EAGAIN && address_.kind == SocketAddress::Kind::kUnix) {
            retry_soon();
            return;
        }
        last_error_ = reason;
        ++next_;
    }
    fail(last_error_ != 0 ? system_message(last_error_) : "the name has no address");
}

int StreamDial::begin_connect(const Endpoint& endpoint, bool& waiting) {
    boost::system::error_code ec;
    if (socket_.is_open()) socket_.close(ec);
    socket_.open(endpoint.protocol(), ec);
    if (!ec) socket_.non_blocking(true, ec);
    if (ec) return ec.value();
    if (::connect(socket_.native_handle(), endpoint.data(),
                  static_cast<socklen_t>(endpoint.size())) == 0) {
        return 0;
    }
    waiting = errno == EINPROGRESS;
    return waiting ? 0 : errno;
}

void StreamDial::wait_connected() {
    socket_.async_wait(
        StreamFd::wait_write, [self = shared_from_this()](const boost::system::error_code& ec) {
            if (!self->done_) return;
            int reason = ec.value();
            socklen_t length = sizeof reason;
            if (!ec) {
                ::getsockopt(self->socket_.native_handle(), SOL_SOCKET, SO_ERROR, &reason, &length);
            }
            if (reason == 0 && connected_to_itself(self->socket_.native_handle())) {
                reason = ECONNREFUSED;
            }
            if (reason == 0) {
                self->succeed();
                return;
            }
            self->last_error_ = reason;
            ++self->next_;
            self->try_next();
        });
}

void StreamDial::retry_soon() {
    retry_.emplace(io_);
    retry_->expires_after(kRetry);
    retry_->async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
        if (!ec && self->done_) self->try_next();
    });
}

void StreamDial::succeed() { std::exchange(done_, nullptr)(std::move(socket_)); }

void StreamDial::fail(const std::string& reason) {
    std::exchange(done_, nullptr)(
        error(ErrorCode::kUnavailable, "can't connect to {}: {}", to_string(address_), reason));
}

void StreamDial::cancel() {
    done_ = nullptr;
    resolver_.cancel();
    if (retry_) retry_->cancel();
    boost::system::error_code ignored;
    socket_.close(ignored);
}

}  // namespace stator::net
