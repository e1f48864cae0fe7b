#include "stator/net/stream_connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <utility>

#include "stator/base/check.h"
#include "stator/net/posix_socket.h"
#include "stator/runtime/asio.h"

namespace stator::net {
namespace {

namespace asio = boost::asio;

constexpr std::size_t kKeepOutput = 256 * 1024;  // a buffer above this is given back when empty
constexpr std::size_t kMinRead = 512;

Error make_error(ErrorCode code, std::string message) {
    Error e;
    e.code = code;
    e.message = std::move(message);
    return e;
}

Error closed_here() { return make_error(ErrorCode::kCancelled, "the connection was closed here"); }

void forget(std::string& text) {
    if (text.capacity() > kKeepOutput) {
        text = {};
    } else {
        text.clear();
    }
}

}  // namespace

// ---- a loop's connections

asio::execution_context::id LoopStreams::id;

void LoopStreams::flush_later(runtime::Loop& loop, std::shared_ptr<StreamConnection> connection) {
    waiting_.push_back(std::move(connection));
    if (waiting_.size() == 1) {
        loop.at_turn_end([this] { flush_all(); });
    }
}

void LoopStreams::flush_all() {
    flushing_.swap(waiting_);  // what asks for more while this runs belongs to the next turn
    for (const auto& connection : flushing_) connection->flush();
    flushing_.clear();
}

void LoopStreams::shutdown() {
    waiting_.clear();
    flushing_.clear();
    std::vector<std::shared_ptr<StreamHandler>> handlers;
    for (auto* connection : all_) handlers.push_back(connection->take_handler());
}

// ---- beginning

StreamConnection::StreamConnection(runtime::Loop& loop, StreamOptions options,
                                   std::shared_ptr<void> seat)
    : loop_(loop),
      io_(runtime::asio_context(loop)),
      streams_(asio::use_service<LoopStreams>(static_cast<asio::execution_context&>(io_))),
      options_(std::move(options)),
      seat_(std::move(seat)),
      fd_(io_.get_executor()),
      timer_(io_) {
    streams_.add(*this);
    options_.read_bytes = std::max(options_.read_bytes, kMinRead);
}

void StreamConnection::dial(const SocketAddress& address, std::shared_ptr<StreamHandler> handler) {
    handler_ = std::move(handler);
    peer_ = to_string(address);
    // Weak: this owns the dial. The timer keeps this alive until the dial ends.
    dial_ = std::make_shared<StreamDial>(
        io_, address, [weak = weak_from_this(), host = address.host](Result<StreamFd> connected) {
            const auto self = weak.lock();
            if (!self) return;
            self->dial_.reset();
            if (!connected) {
                self->finish(std::move(connected.error()));
                return;
            }
            self->fd_ = std::move(*connected);
            self->start(std::move(self->handler_), host);
        });
    arm_timer(options_.connect_timeout);
    // Not at once: the caller must have the socket in hand before its handler is told anything.
    asio::post(io_, [dial = dial_] { dial->start(); });
}

void StreamConnection::adopt(int fd) {
    boost::system::error_code ec;
    fd_.assign(asio::generic::stream_protocol(AF_UNSPEC, 0), fd, ec);
    if (ec) ::close(fd);
    peer_ = peer_of(fd);
}

void StreamConnection::start(std::shared_ptr<StreamHandler> handler,
                             std::string_view tls_server_name) {
    handler_ = std::move(handler);
    if (state_ == State::kClosed || !fd_.is_open()) {
        state_ = State::kConnecting;  // closed before it had a handler: the handler is told
        finish(closed_here());
        return;
    }
    const int on = 1;
    ::setsockopt(fd_.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    peer_ = peer_of(fd_.native_handle());
    if (!options_.tls) {
        become_open();
        return;
    }
    state_ = State::kHandshake;
    arm_timer(options_.connect_timeout);
    tls_.emplace(options_.tls, tls_server_name);
    if (!decrypt({})) return;
    read_more();
}

void StreamConnection::refuse() { abort(); }

void StreamConnection::become_open() {
    timer_.cancel();
    state_ = State::kOpen;
    handler_->on_open();
    if (out_released_) flush_later();
    read_more();
}

// ---- reading

bool StreamConnection::wants_bytes() const {
    switch (state_) {
        case State::kOpen:
            return !paused_ && held_.empty();
        case State::kHandshake:
        case State::kClosing:
        case State::kLinger:
            return true;
        case State::kConnecting:
        case State::kClosed:
            return false;
    }
    return false;
}

void StreamConnection::read_more() {
    if (reading_ || !wants_bytes()) return;
    if (!buffer_) buffer_ = std::make_unique_for_overwrite<char[]>(options_.read_bytes);
    reading_ = true;
    fd_.async_read_some(asio::buffer(buffer_.get(), options_.read_bytes),
                        [self = shared_from_this()](const boost::system::error_code& ec,
                                                    std::size_t n) { self->on_read(ec, n); });
}

void StreamConnection::on_read(const boost::system::error_code& ec, std::size_t n) {
    reading_ = false;
    if (state_ == State::kClosed) return;
    if (ec) {
        // Over TLS an end without farewell may be an attacker's cut.
        if (!tls_ && ec == asio::error::eof) peer_ended_ = true;
        on_peer_end(ec == asio::error::eof ? "the peer closed the connection"
                                           : "the connection is lost: " + ec.message());
        return;
    }
    if (state_ == State::kClosing || state_ == State::kLinger) {
        // Taken and dropped: unread bytes would make the kernel reset the connection, and the reset
        // can overtake what was sent.
        read_more();
        return;
    }
    const std::string_view bytes(buffer_.get(), n);
    if (!tls_) {
        held_ = bytes;
    } else if (!decrypt(bytes)) {
        return;
    }
    deliver();
}

/// False where the connection has ended of it.
bool StreamConnection::decrypt(std::string_view bytes) {
    plain_.clear();
    auto ended = tls_->receive(bytes, plain_, wire_);
    if (!blocked_ && sent_ < wire_.size()) send_some();
    if (state_ == State::kClosed) return false;
    if (!ended) {
        ended.error().message = peer_ + ": " + ended.error().message;
        finish(std::move(ended.error()));
        return false;
    }
    peer_ended_ = *ended;
    held_ = plain_;
    if (state_ == State::kHandshake && tls_->ready()) become_open();
    return state_ != State::kClosed;
}

void StreamConnection::deliver() {
    while (!held_.empty() && state_ == State::kOpen && !paused_) {
        const std::string_view piece = held_.substr(0, options_.read_bytes);
        held_.remove_prefix(piece.size());
        handler_->on_bytes(piece);
    }
    if (state_ == State::kClosed) return;
    if (peer_ended_ && (held_.empty() || state_ != State::kOpen)) {
        on_peer_end("the peer closed the connection");
        return;
    }
    read_more();
}

void StreamConnection::on_peer_end(const std::string& how) {
    if (state_ == State::kClosing || state_ == State::kLinger) {
        finish(closed_here());
        return;
    }
    finish(make_error(ErrorCode::kUnavailable, peer_ + ": " + how));
}

void StreamConnection::pause_reading(bool paused) {
    if (std::exchange(paused_, paused) == paused || paused) return;
    if (held_.empty()) {
        read_more();
        return;
    }
    // Not at once: the caller may be in the middle of on_bytes().
    asio::post(io_, [self = shared_from_this()] { self->deliver(); });
}

// ---- sending

void StreamConnection::flush_later() {
    STATOR_ASSERT(loop_.on_this_thread());
    if (state_ == State::kClosed) {
        out_.clear();
        return;
    }
    out_released_ = true;
    if (flush_asked_) return;
    flush_asked_ = true;
    streams_.flush_later(loop_, shared_from_this());
}

void StreamConnection::flush() {
    flush_asked_ = false;
    if (state_ == State::kConnecting || state_ == State::kClosed || blocked_) return;
    send_some();
}

void StreamConnection::encrypt_output() {
    if (!out_.empty()) {
        if (auto sealed = tls_->send(out_, wire_); !sealed) {
            finish(std::move(sealed.error()));
            return;
        }
        forget(out_);
    }
    if (state_ == State::kClosing && !std::exchange(farewell_sent_, true)) tls_->close(wire_);
}

/// True if there is something to send.
bool StreamConnection::fill_wire() {
    const bool rest = sent_ < wire_.size();
    // Before the first byte of it has left, what TLS has to say goes together with our output.
    if (rest && (!tls_ || sent_ != 0)) return true;
    if (!rest) {
        forget(wire_);
        sent_ = 0;
    }
    const bool may_send = state_ == State::kOpen || state_ == State::kClosing;
    if (may_send && std::exchange(out_released_, false)) {
        if (tls_) {
            encrypt_output();
        } else {
            wire_.swap(out_);
        }
    }
    return sent_ < wire_.size();
}

void StreamConnection::send_some() {
    while (fill_wire()) {
        const std::size_t rest = wire_.size() - sent_;
        const ssize_t n =
            ::send(fd_.native_handle(), wire_.data() + sent_, rest, MSG_NOSIGNAL | MSG_DONTWAIT);
        ++sends_;
        if (n >= 0) {
            sent_ += static_cast<std::size_t>(n);
            if (static_cast<std::size_t>(n) == rest) continue;
        } else if (errno == EINTR) {
            continue;
        } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
            on_peer_end("the connection is lost: " + system_message(errno));
            return;
        }
        wait_writable();
        return;
    }
    if (state_ != State::kClosed) after_all_sent();
}

void StreamConnection::wait_writable() {
    blocked_ = true;
    told_blocked_ = true;
    fd_.async_wait(StreamFd::wait_write,
                   [self = shared_from_this()](const boost::system::error_code&) {
                       self->blocked_ = false;
                       if (self->state_ != State::kClosed) self->send_some();
                   });
}

void StreamConnection::after_all_sent() {
    if (state_ == State::kClosing) {
        state_ = State::kLinger;
        boost::system::error_code ignored;
        fd_.shutdown(StreamFd::shutdown_send, ignored);
        if (peer_ended_) {
            finish(closed_here());
            return;
        }
        read_more();
    } else if (state_ == State::kOpen && std::exchange(told_blocked_, false)) {
        handler_->on_drained();
    }
}

// ---- ending

void StreamConnection::close(std::chrono::milliseconds linger) {
    switch (state_) {
        case State::kConnecting:
        case State::kHandshake:
            finish(closed_here());
            return;
        case State::kOpen:
            state_ = State::kClosing;
            held_ = {};
            flush_later();
            read_more();
            break;
        case State::kClosing:
        case State::kLinger:
            break;
        case State::kClosed:
            return;
    }
    arm_timer(linger);
}

void StreamConnection::abort() {
    if (state_ == State::kClosed) return;
    boost::system::error_code ignored;
    if (fd_.is_open()) fd_.set_option(asio::socket_base::linger(true, 0), ignored);
    finish(closed_here());
}

void StreamConnection::arm_timer(std::chrono::milliseconds after) {
    timer_.expires_after(after);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
        if (!ec) self->on_timer();
    });
}

void StreamConnection::on_timer() {
    switch (state_) {
        case State::kConnecting:
        case State::kHandshake:
            finish(make_error(
                ErrorCode::kDeadlineExceeded,
                fmt::format("{} {} within {} ms", peer_,
                            state_ == State::kConnecting ? "could not be connected"
                                                         : "did not finish the TLS handshake",
                            options_.connect_timeout.count())));
            return;
        case State::kClosing:
        case State::kLinger:
            finish(closed_here());
            return;
        case State::kOpen:
        case State::kClosed:
            return;
    }
}

void StreamConnection::finish(Error why) {
    if (state_ == State::kClosed) return;
    state_ = State::kClosed;
    streams_.remove(*this);
    timer_.cancel();
    if (const auto dial = std::exchange(dial_, nullptr)) dial->cancel();
    boost::system::error_code ignored;
    fd_.close(ignored);
    // buffer_ and plain_ stay: on_bytes() may be looking at them.
    held_ = {};
    out_ = {};
    wire_ = {};
    sent_ = 0;
    seat_.reset();
    asio::post(io_,
               [self = shared_from_this(), handler = std::move(handler_), why = std::move(why)] {
                   if (handler) handler->on_closed(why);
               });
}

// ---- the way in

std::shared_ptr<StreamSocket> connect_stream(runtime::Loop& loop, const SocketAddress& address,
                                             StreamOptions options,
                                             std::shared_ptr<StreamHandler> handler) {
    STATOR_ASSERT(loop.on_this_thread());
    auto connection = std::make_shared<StreamConnection>(loop, std::move(options), nullptr);
    connection->dial(address, std::move(handler));
    return connection;
}

}  // namespace stator::net
