#include "stator/net/http_connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <cerrno>
#include <limits>
#include <utility>

#include "stator/base/log.h"

namespace stator::net {
namespace {

namespace asio = boost::asio;

constexpr std::size_t kSmallBuffer = 8 * 1024;   // an idle connection's cost
constexpr std::size_t kLargeBuffer = 64 * 1024;  // while a long body comes
constexpr std::size_t kMaxInbox = 64 * 1024;     // then reading pauses
constexpr std::size_t kPauseOutput = 64 * 1024;  // no further pipelined request above this
constexpr std::size_t kKeepOutput = 256 * 1024;  // a buffer above this is given back when empty
// After a last answer: how long and how much is read and dropped so that the client gets to read
// it (a close with unread bytes makes the kernel send a reset, which can overtake the answer).
constexpr std::chrono::seconds kLinger{2};
constexpr std::chrono::milliseconds kLingerStopping{250};
constexpr std::size_t kMaxDiscard = 256 * 1024 * 1024;

}  // namespace

Connection::Connection(std::shared_ptr<Shard> shard, int fd, std::string peer)
    : shard_(std::move(shard)),
      core_(shard_->core()),
      socket_(shard_->io()),
      peer_(std::move(peer)),
      parser_(core_.limits),
      since_(shard_->now()) {
    boost::system::error_code ignored;
    // The family is only asked for when binding or connecting, which is done.
    socket_.assign(asio::ip::tcp::v4(), fd, ignored);
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void Connection::start() { start_read(); }

void Connection::refuse_surplus() {
    fail(503, "The server has as many connections as it takes (" +
                  std::to_string(core_.limits.max_connections) + "); try again later.");
    start_read();
}

void Connection::enter(Phase phase) {
    phase_ = phase;
    since_ = shard_->now();
}

// ---- reading

void Connection::start_read() {
    if (reading_ || phase_ == Phase::kClosed || peer_ended_) return;
    if (!inbox_.empty() && (phase_ != Phase::kAnswer || inbox_.size() >= kMaxInbox)) return;
    const bool long_body =
        phase_ == Phase::kBody && (parser_.content_length().value_or(0) > kLargeBuffer ||
                                   parser_.request().body.size() > kLargeBuffer);
    const std::size_t want = long_body ? kLargeBuffer : kSmallBuffer;
    if (buffer_bytes_ != want) {
        buffer_ = std::make_unique_for_overwrite<char[]>(want);
        buffer_bytes_ = want;
    }
    reading_ = true;
    socket_.async_read_some(asio::buffer(buffer_.get(), buffer_bytes_),
                            [self = shared_from_this()](const boost::system::error_code& ec,
                                                        std::size_t n) { self->on_read(ec, n); });
}

void Connection::on_read(const boost::system::error_code& ec, std::size_t n) {
    reading_ = false;
    if (phase_ == Phase::kClosed) return;
    if (ec) {
        on_client_end(ec == asio::error::eof);
        return;
    }
    const std::string_view bytes(buffer_.get(), n);
    if (phase_ == Phase::kLinger) {
        discarded_ += n;
        if (discarded_ > kMaxDiscard) {
            end(true, false);
            return;
        }
    } else if (phase_ == Phase::kAnswer || !inbox_.empty()) {
        inbox_.append(bytes);
    } else {
        take_input(bytes);
    }
    start_read();
}

void Connection::on_client_end(bool orderly) {
    peer_ended_ = true;
    // A client that ends its sending side has left, as far as anyone can tell: generating for
    // nobody costs more than the few that only half-close. But an answer that is already whole is
    // still delivered.
    const bool answers_left = unsent() > 0 && phase_ != Phase::kAnswer;
    if (orderly && answers_left) {
        if (phase_ != Phase::kLinger) enter(Phase::kLinger);
        return;
    }
    end(false, false);
}

void Connection::take_input(std::string_view bytes) {
    taking_input_ = true;
    while (!bytes.empty() && phase_ < Phase::kAnswer && unsent() < kPauseOutput) {
        bytes.remove_prefix(parser_.feed(bytes));
        after_feed();
    }
    taking_input_ = false;
    if (phase_ <= Phase::kAnswer) inbox_.assign(bytes);
}

void Connection::after_feed() {
    if (phase_ == Phase::kIdle && parser_.started()) {
        enter(Phase::kHead);
        received_ = since_;
    }
    switch (parser_.state()) {
        case HttpParser::State::kHead:
            return;
        case HttpParser::State::kBody:
            if (phase_ == Phase::kHead) body_begins();
            if (phase_ == Phase::kBody) charge_body();
            return;
        case HttpParser::State::kDone:
            if (charge_body()) dispatch();
            return;
        case HttpParser::State::kRefused: {
            const HttpRefusal& refusal = parser_.refusal();
            fail(refusal.status, refusal.message);
            return;
        }
    }
}

void Connection::body_begins() {
    enter(Phase::kBody);
    const std::uint64_t announced = parser_.content_length().value_or(0);
    const std::size_t held = core_.body_bytes.load(std::memory_order_relaxed);
    if (announced + held > core_.limits.max_buffered_body_bytes) {
        fail(503, "The server holds as many request bodies as it takes; try again later.");
        return;
    }
    if (parser_.expects_continue() && parser_.request().body.empty()) {
        out_ += "HTTP/1.1 100 Continue\r\n\r\n";
        request_flush();
    }
}

bool Connection::charge_body() {
    const std::size_t more = parser_.request().body.size() - body_charged_;
    if (more == 0) return true;
    body_charged_ += more;
    const auto held = core_.body_bytes.fetch_add(more, std::memory_order_relaxed) + more;
    if (held <= core_.limits.max_buffered_body_bytes) return true;
    fail(503, "The server holds as many request bodies as it takes; try again later.");
    return false;
}

void Connection::release_body_charge() {
    if (body_charged_ == 0) return;
    core_.body_bytes.fetch_sub(std::exchange(body_charged_, 0), std::memory_order_relaxed);
}

void Connection::dispatch() {
    phase_ = Phase::kAnswer;
    shard_->requests.add(1);
    HttpRequest& request = parser_.request();
    request.peer = peer_;
    request.received = received_;
    auto exchange = std::make_shared<Exchange>(shard_, shared_from_this(), std::move(request),
                                               parser_.http_1_0(), ++request_number_,
                                               std::exchange(body_charged_, 0));
    exchange_ = exchange;
    core_.handler(std::move(exchange));
}

void Connection::fail(int status, std::string_view message) {
    if (status == 408) {
        shard_->timeouts.add(1);
    } else if (status != 503) {
        shard_->protocol_errors.add(1);
    }
    const auto [content_type, body] = core_.error_body(status, message);
    append_head(out_,
                {.status = status,
                 .content_type = content_type,
                 .content_length = body.size(),
                 .close = true},
                shard_->date_line());
    out_ += body;
    parser_.reset();
    release_body_charge();
    enter(Phase::kLinger);
    request_flush();
}

// ---- answering

void Connection::request_flush() {
    if (flush_asked_ || phase_ == Phase::kClosed) return;
    flush_asked_ = true;
    shard_->flush_later(shared_from_this());
}

void Connection::wrote_some() {
    if (unsent() > core_.limits.max_output_bytes) {
        send_some();
        if (unsent() > core_.limits.max_output_bytes) {
            end(true, true);
            return;
        }
    }
    request_flush();
}

void Connection::finish(std::shared_ptr<Exchange> exchange, bool close) {
    exchange_.reset();
    unsent_answers_.push_back({out_start_ + out_.size(), std::move(exchange)});
    parser_.reset();
    if (close || core_.stopping.load(std::memory_order_relaxed)) {
        inbox_ = {};
        enter(Phase::kLinger);
    } else {
        enter(Phase::kIdle);
    }
    request_flush();
}

void Connection::abort() { end(true, true); }

void Connection::abandoned(std::uint64_t request_number) {
    if (phase_ != Phase::kAnswer || request_number != request_number_) return;
    log_error("A request handler dropped its request without a whole answer.", {{"peer", peer_}});
    end(true, false);
}

Connection::Sent Connection::send_some() {
    while (sent_ < out_.size()) {
        const ssize_t n = ::send(socket_.native_handle(), out_.data() + sent_, unsent(),
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
        shard_->sends.add(1);
        if (n >= 0) {
            sent_ += static_cast<std::size_t>(n);
            shard_->bytes_sent.add(static_cast<std::uint64_t>(n));
            if (sent_ < out_.size()) write_progress_ = shard_->now();
        } else if (errno != EINTR) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? Sent::kBlocked : Sent::kBroken;
        }
    }
    out_start_ += out_.size();
    sent_ = 0;
    if (out_.capacity() > kKeepOutput) {
        out_ = {};
    } else {
        out_.clear();
    }
    return Sent::kAll;
}

void Connection::flush() {
    flush_asked_ = false;
    if (phase_ == Phase::kClosed) return;
    const Sent result = waiting_write_ ? Sent::kBlocked : send_some();
    tell_completed();
    if (phase_ == Phase::kClosed) return;
    switch (result) {
        case Sent::kAll:
            after_all_sent();
            return;
        case Sent::kBlocked:
            wait_writable();
            return;
        case Sent::kBroken:
            end(false, false);
            return;
    }
}

void Connection::tell_completed() {
    const std::uint64_t up_to = out_start_ + sent_;
    std::size_t done = 0;
    while (done < unsent_answers_.size() && unsent_answers_[done].up_to <= up_to) ++done;
    if (done == 0) return;
    std::vector<Unsent> completed(
        std::make_move_iterator(unsent_answers_.begin()),
        std::make_move_iterator(unsent_answers_.begin() + static_cast<std::ptrdiff_t>(done)));
    unsent_answers_.erase(unsent_answers_.begin(),
                          unsent_answers_.begin() + static_cast<std::ptrdiff_t>(done));
    for (const auto& answer : completed) answer.exchange->sent();
}

void Connection::wait_writable() {
    if (waiting_write_) return;
    waiting_write_ = true;
    write_progress_ = shard_->now();
    socket_.async_wait(Socket::wait_write,
                       [self = shared_from_this()](const boost::system::error_code& ec) {
                           self->waiting_write_ = false;
                           if (!ec) self->flush();
                       });
}

void Connection::after_all_sent() {
    if (phase_ == Phase::kLinger) {
        if (peer_ended_) {
            end(false, false);
            return;
        }
        boost::system::error_code ignored;
        socket_.shutdown(Socket::shutdown_send, ignored);
        since_ = shard_->now();
    } else if (phase_ < Phase::kAnswer && !inbox_.empty()) {
        const std::string input = std::exchange(inbox_, {});
        take_input(input);
    }
    start_read();
}

// ---- ending

void Connection::check_time(TimePoint now) {
    const auto age = now - since_;
    const HttpLimits& limits = core_.limits;
    if (waiting_write_) {
        if (now - write_progress_ > limits.write_timeout) {
            shard_->timeouts.add(1);
            end(true, false);
        }
        return;
    }
    switch (phase_) {
        case Phase::kIdle:
            if (age > (request_number_ == 0 ? limits.header_timeout : limits.idle_timeout)) {
                end(false, false);
            }
            return;
        case Phase::kHead:
            if (age > limits.header_timeout) {
                fail(408, "The request's headers did not arrive in time.");
            }
            return;
        case Phase::kBody:
            if (age > limits.body_timeout) fail(408, "The request's body did not arrive in time.");
            return;
        case Phase::kLinger:
            if (unsent() == 0 && age > (core_.stopping.load(std::memory_order_relaxed)
                                            ? std::chrono::nanoseconds(kLingerStopping)
                                            : std::chrono::nanoseconds(kLinger))) {
                end(false, false);
            }
            return;
        case Phase::kAnswer:
        case Phase::kClosed:
            return;
    }
}

void Connection::begin_stop() {
    if (phase_ == Phase::kIdle && unsent() == 0 && inbox_.empty()) end(false, false);
}

void Connection::end(bool reset, bool tell_later) {
    if (phase_ == Phase::kClosed) return;
    phase_ = Phase::kClosed;
    const auto self = shared_from_this();
    boost::system::error_code ignored;
    if (reset) socket_.set_option(asio::socket_base::linger(true, 0), ignored);
    socket_.close(ignored);
    release_body_charge();

    std::vector<std::function<void()>> to_tell;
    for (const auto& answer : std::exchange(unsent_answers_, {})) {
        to_tell.push_back(answer.exchange->lost());
    }
    if (const auto exchange = exchange_.lock()) to_tell.push_back(exchange->lost());
    exchange_.reset();
    inbox_ = {};
    out_ = {};
    sent_ = 0;
    shard_->remove(*this);
    for (auto& f : to_tell) {
        if (!f) continue;
        if (tell_later) {
            shard_->loop().post(std::move(f));
        } else {
            f();
        }
    }
}

}  // namespace stator::net
