#include "stator/transfer/tcp_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/address.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "stator/net/posix_socket.h"
#include "stator/runtime/asio.h"
#include "stator/transfer/checksum.h"

namespace stator::transfer {
namespace {

namespace asio = boost::asio;

constexpr std::size_t kBufferBytes = 64 * 1024;
/// What may follow a chunk in the read that ends it: the next one's head, and no more, for that
/// would have to be copied.
constexpr std::size_t kBehindChunk = 256;
constexpr std::size_t kTurnBytes = 4 << 20;  ///< then others on the loop have their turn
constexpr std::size_t kLowWater = 512 * 1024;
constexpr std::size_t kEncryptBytes = 256 * 1024;
constexpr std::size_t kMaxEndpoints = 16;
constexpr int kVectors = 16;
constexpr int kDeadAfterMs = 15'000;

void set(int fd, int level, int option, int value) {
    ::setsockopt(fd, level, option, &value, sizeof value);
}

void set_options(int fd) {
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 2);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kDeadAfterMs);
}

/// A socket that connects to a free port of its own machine may be given that very port.
bool connected_to_itself(int fd) {
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    return ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
           net::printed(own, length) == net::peer_of(fd);
}

tl::unexpected<Error> lost(int reason) {
    return error(ErrorCode::kUnavailable, "the connection is lost: {}",
                 net::system_message(reason));
}

Error cancelled() { return error(ErrorCode::kCancelled, "the transfer plane is stopped").value(); }

}  // namespace

TcpStream::TcpStream(runtime::Loop& loop, std::shared_ptr<const net::TlsContext> tls)
    : loop_(loop),
      tls_context_(std::move(tls)),
      fd_(runtime::asio_context(loop)),
      timer_(runtime::asio_context(loop)),
      buffer_(kBufferBytes) {}

void TcpStream::arm(std::chrono::milliseconds timeout) {
    timer_.expires_after(timeout);
    timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->state_ == State::kOpen) return;
        self->close(error(ErrorCode::kUnavailable, "no connection in time").value());
    });
}

void TcpStream::dial(const net::SocketAddress& address, std::chrono::milliseconds timeout,
                     std::shared_ptr<TcpStreamEvents> events) {
    state_ = State::kDialing;
    address_ = address;
    events_ = std::move(events);
    arm(timeout);
    boost::system::error_code ec;
    const auto numeric = asio::ip::make_address(address.host, ec);
    if (!ec) {
        endpoints_.emplace_back(numeric, address.port);
        connect_next();
        return;
    }
    resolver_.emplace(runtime::asio_context(loop_));
    resolver_->async_resolve(
        address.host, std::to_string(address.port), asio::ip::resolver_base::numeric_service,
        [self = shared_from_this()](const boost::system::error_code& failed, const auto& found) {
            if (self->state_ != State::kDialing) return;
            if (failed) self->last_reason_ = "the name can't be resolved: " + failed.message();
            for (const auto& entry : found) {
                if (self->endpoints_.size() < kMaxEndpoints) {
                    self->endpoints_.push_back(entry.endpoint());
                }
            }
            self->connect_next();
        });
}

void TcpStream::connect_next() {
    for (; next_endpoint_ < endpoints_.size(); ++next_endpoint_) {
        const auto& to = endpoints_[next_endpoint_];
        boost::system::error_code ignored;
        fd_.close(ignored);
        const int fd =
            ::socket(to.protocol().family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            last_reason_ = net::system_message(errno);
            continue;
        }
        fd_.assign(fd, ignored);
        if (::connect(fd, to.data(), static_cast<socklen_t>(to.size())) == 0 ||
            errno == EINPROGRESS) {
            fd_.async_wait(asio::posix::stream_descriptor::wait_write,
                           [self = shared_from_this()](const boost::system::error_code& ec) {
                               if (!ec && self->state_ == State::kDialing) self->connected();
                           });
            return;
        }
        last_reason_ = net::system_message(errno);
    }
    close(error(ErrorCode::kUnavailable, "can't connect to {}: {}", net::to_string(address_),
                last_reason_)
              .value());
}

void TcpStream::connected() {
    int reason = 0;
    socklen_t length = sizeof reason;
    ::getsockopt(fd_.native_handle(), SOL_SOCKET, SO_ERROR, &reason, &length);
    if (reason == 0 && connected_to_itself(fd_.native_handle())) reason = ECONNREFUSED;
    if (reason != 0) {
        last_reason_ = net::system_message(reason);
        ++next_endpoint_;
        connect_next();
        return;
    }
    begin(address_.host);
}

void TcpStream::accept(int fd, std::chrono::milliseconds timeout,
                       std::shared_ptr<TcpStreamEvents> events) {
    events_ = std::move(events);
    boost::system::error_code ignored;
    fd_.assign(fd, ignored);
    arm(timeout);
    begin({});
}

void TcpStream::begin(std::string_view tls_server_name) {
    set_options(fd_.native_handle());
    if (!tls_context_) {
        become_open();
    } else {
        state_ = State::kHandshake;
        tls_.emplace(tls_context_, tls_server_name);
        if (auto ok = decrypt({}); !ok) {
            close(std::move(ok.error()));
            return;
        }
        flush_soon();
    }
    if (state_ != State::kClosed) wait_readable();
}

void TcpStream::become_open() {
    state_ = State::kOpen;
    timer_.cancel();
    const auto events = events_;
    events->on_open();
    flush_soon();
}

void TcpStream::wait_readable() {
    fd_.async_wait(asio::posix::stream_descriptor::wait_read,
                   [self = shared_from_this()](const boost::system::error_code& ec) {
                       if (!ec && self->state_ != State::kClosed) self->on_readable();
                   });
}

void TcpStream::on_readable() {
    std::size_t turn = 0;
    while (turn < kTurnBytes && state_ != State::kClosed) {
        auto n = read_some();
        if (!n) {
            close(std::move(n.error()));
            return;
        }
        if (*n == 0) break;
        turn += *n;
    }
    if (state_ != State::kClosed) wait_readable();
}

Result<std::size_t> TcpStream::read_some() {
    const bool straight = chunk_ && !tls_;
    if (buffered_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);  // one frame's at most
    std::array<iovec, 2> to{};
    std::size_t count = 0;
    if (straight) {
        to[count++] = {chunk_bytes_.data() + chunk_got_, chunk_bytes_.size() - chunk_got_};
    }
    to[count++] = {buffer_.data() + buffered_,
                   straight ? kBehindChunk : buffer_.size() - buffered_};
    const ssize_t n = ::readv(fd_.native_handle(), to.data(), static_cast<int>(count));
    if (n == 0) return error(ErrorCode::kUnavailable, "the other side closed the connection");
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
        return lost(errno);
    }
    auto rest = static_cast<std::size_t>(n);
    bytes_in_ += rest;
    if (tls_) {
        if (auto ok = decrypt({buffer_.data(), rest}); !ok) {
            return tl::unexpected<Error>(std::move(ok.error()));
        }
        return static_cast<std::size_t>(n);
    }
    if (straight) {
        const std::size_t mine = std::min(rest, to[0].iov_len);
        rest -= mine;
        if (auto ok = advance_chunk(mine); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    }
    buffered_ += rest;
    std::string_view bytes(buffer_.data(), buffered_);
    auto ok = take(bytes);
    if (!bytes.empty()) std::memmove(buffer_.data(), bytes.data(), bytes.size());
    buffered_ = bytes.size();
    if (!ok) return tl::unexpected<Error>(std::move(ok.error()));
    return static_cast<std::size_t>(n);
}

Result<void> TcpStream::decrypt(std::string_view bytes) {
    const std::size_t before = cipher_.size();
    auto ended = tls_->receive(bytes, plain_, cipher_);
    if (cipher_.size() != before) flush_soon();
    if (!ended) {
        flush();  // the alert tells the peer why
        return tl::unexpected<Error>(std::move(ended.error()));
    }
    if (state_ == State::kHandshake && tls_->ready()) become_open();
    if (state_ == State::kClosed) return {};
    std::string_view plain(plain_);
    auto ok = take(plain);
    plain_.erase(0, plain_.size() - plain.size());
    if (ok && *ended) return error(ErrorCode::kUnavailable, "the other side closed the connection");
    return ok;
}

Result<void> TcpStream::take(std::string_view& bytes) {
    while (state_ != State::kClosed) {
        if (chunk_) {
            const std::size_t n = std::min(bytes.size(), chunk_bytes_.size() - chunk_got_);
            if (n == 0) return {};
            std::memcpy(chunk_bytes_.data() + chunk_got_, bytes.data(), n);
            bytes.remove_prefix(n);
            if (auto ok = advance_chunk(n); !ok) return ok;
            continue;
        }
        auto message = take_message(bytes);
        if (!message) return tl::unexpected<Error>(std::move(message.error()));
        if (!*message) return {};
        const auto events = events_;
        if (const auto* chunk = std::get_if<Chunk>(&**message)) {
            auto to = events->on_chunk(*chunk);
            if (!to) return tl::unexpected<Error>(std::move(to.error()));
            chunk_ = *chunk;
            chunk_bytes_ = *to;
            chunk_got_ = 0;
        } else if (auto ok = events->on_message(**message); !ok) {
            return ok;
        }
    }
    return {};
}

Result<void> TcpStream::advance_chunk(std::size_t bytes) {
    chunk_got_ += bytes;
    if (chunk_got_ < chunk_bytes_.size()) return {};
    const Chunk chunk = *std::exchange(chunk_, std::nullopt);
    const auto events = events_;
    return events->on_chunk_end(chunk, chunk_bytes_);
}

void TcpStream::send(const Message& message) {
    if (state_ == State::kClosed) return;
    if (queue_.empty() || !queue_.back().body.empty()) queue_.emplace_back();
    const std::size_t before = queue_.back().head.size();
    append_message(queue_.back().head, message);
    queued_bytes_ += queue_.back().head.size() - before;
    flush_soon();
}

void TcpStream::send_chunk(Chunk chunk, std::span<const std::byte> bytes,
                           std::shared_ptr<const void> keep) {
    if (state_ == State::kClosed) return;
    chunk.bytes = static_cast<std::uint32_t>(bytes.size());
    if (chunk.checked != 0) chunk.check = checksum(bytes);
    send(chunk);
    queue_.back().body = bytes;
    queue_.back().keep = std::move(keep);
    queued_bytes_ += bytes.size();
}

void TcpStream::flush_soon() {
    if (waiting_writable_ || std::exchange(flush_posted_, true)) return;
    loop_.post([weak = weak_from_this()] {
        const auto self = weak.lock();
        if (!self) return;
        self->flush_posted_ = false;
        self->flush();
    });
}

void TcpStream::flush() {
    std::size_t turn = 0;
    while (state_ == State::kOpen || state_ == State::kHandshake) {
        if (state_ == State::kOpen && queued_bytes_ < kLowWater) {
            const bool posted = std::exchange(flush_posted_, true);  // it is being done
            const auto events = events_;
            events->on_room();
            flush_posted_ = posted;
            if (state_ == State::kClosed) return;
        }
        auto n = send_some();
        if (!n) {
            close(std::move(n.error()));
            return;
        }
        if (*n == 0) break;
        turn += *n;
        if (turn >= kTurnBytes) {
            flush_soon();
            return;
        }
    }
    const bool more = (!queue_.empty() && state_ == State::kOpen) || cipher_sent_ < cipher_.size();
    if (state_ == State::kClosed || !more || std::exchange(waiting_writable_, true)) return;
    fd_.async_wait(asio::posix::stream_descriptor::wait_write,
                   [self = shared_from_this()](const boost::system::error_code& ec) {
                       self->waiting_writable_ = false;
                       if (!ec && self->state_ != State::kClosed) self->flush();
                   });
}

Result<std::size_t> TcpStream::send_some() { return tls_ ? send_tls() : send_plain(); }

Result<std::size_t> TcpStream::send_plain() {
    std::array<iovec, kVectors> from{};
    std::size_t count = 0;
    std::size_t skip = sent_;
    for (auto piece = queue_.begin(); piece != queue_.end() && count + 2 <= from.size(); ++piece) {
        const auto add = [&](const void* data, std::size_t size) {
            const std::size_t skipped = std::min(skip, size);
            skip -= skipped;
            if (size == skipped) return;
            // sendmsg() does not write through it.
            from[count++] = {const_cast<char*>(static_cast<const char*>(data)) + skipped,
                             size - skipped};
        };
        add(piece->head.data(), piece->head.size());
        add(piece->body.data(), piece->body.size());
    }
    if (count == 0) return std::size_t{0};
    msghdr message{};
    message.msg_iov = from.data();
    message.msg_iovlen = count;
    const ssize_t n = ::sendmsg(fd_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
        return lost(errno);
    }
    drop_sent(static_cast<std::size_t>(n));
    bytes_out_ += static_cast<std::size_t>(n);
    return static_cast<std::size_t>(n);
}

void TcpStream::drop_sent(std::size_t bytes) {
    queued_bytes_ -= bytes;
    sent_ += bytes;
    while (!queue_.empty()) {
        const std::size_t size = queue_.front().head.size() + queue_.front().body.size();
        if (sent_ < size) return;
        sent_ -= size;
        queue_.pop_front();
    }
}

Result<std::size_t> TcpStream::send_tls() {
    if (cipher_sent_ == cipher_.size()) {
        cipher_.clear();
        cipher_sent_ = 0;
        while (tls_->ready() && !queue_.empty() && cipher_.size() < kEncryptBytes) {
            const Piece& piece = queue_.front();
            const std::size_t size = piece.head.size() + piece.body.size();
            auto ok = tls_->send(piece.head, cipher_);
            if (ok && !piece.body.empty()) {
                ok = tls_->send(
                    {reinterpret_cast<const char*>(piece.body.data()), piece.body.size()}, cipher_);
            }
            if (!ok) return tl::unexpected<Error>(std::move(ok.error()));
            drop_sent(size);
        }
    }
    if (cipher_.empty()) return std::size_t{0};
    const ssize_t n = ::send(fd_.native_handle(), cipher_.data() + cipher_sent_,
                             cipher_.size() - cipher_sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return std::size_t{0};
        return lost(errno);
    }
    cipher_sent_ += static_cast<std::size_t>(n);
    bytes_out_ += static_cast<std::size_t>(n);
    return static_cast<std::size_t>(n);
}

void TcpStream::close(Error why) {
    if (state_ == State::kClosed) return;
    if (state_ == State::kOpen) (void)send_some();  // a refusal, perhaps
    state_ = State::kClosed;
    timer_.cancel();
    if (resolver_) resolver_->cancel();
    boost::system::error_code ignored;
    fd_.close(ignored);
    chunk_.reset();
    queue_.clear();
    queued_bytes_ = 0;
    auto events = std::move(events_);
    events_ = nullptr;
    if (!events) return;
    if (why.message.empty()) why = cancelled();
    if (!loop_.post([events, why] { events->on_closed(why); })) events->on_closed(why);
}

}  // namespace stator::transfer
