#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/net/http_pool_impl.h"
#include "stator/runtime/asio.h"

namespace stator::net {
namespace {

using Kind = HttpFailure::Kind;

}  // namespace

HttpFailure http_failure(HttpFailure::Kind kind, ErrorCode code, std::string message) {
    HttpFailure failure;
    failure.kind = kind;
    failure.error.code = code;
    failure.error.message = std::move(message);
    return failure;
}

// ---- a call

void PoolCall::fail(const HttpFailure& failure, TimePoint at) {
    if (const auto handler = std::exchange(handler_, nullptr)) handler->on_end(&failure, at);
}

void PoolCall::fail_later(runtime::Loop& loop, HttpFailure failure, TimePoint at) {
    if (ended()) return;
    loop.post([handler = std::exchange(handler_, nullptr), failure = std::move(failure), at] {
        handler->on_end(&failure, at);
    });
}

void PoolCall::cancel() {
    const auto pool = pool_.lock();
    if (ended() || !pool) return;
    if (const auto connection = connection_.lock()) {
        connection->abandon();
    } else {
        pool->forget(*this);
    }
    fail_later(pool->loop,
               http_failure(Kind::kCancelled, ErrorCode::kCancelled, "the caller ended the call"),
               pool->clock.now());
}

// ---- its connection

PoolConnection::PoolConnection(const std::shared_ptr<HttpPool::Impl>& pool)
    : pool_(pool),
      loop_(pool->loop),
      clock_(pool->clock),
      limits_(pool->options),
      timer_(runtime::asio_context(pool->loop)),
      parser_(pool->options.max_head_bytes) {
    limits_.headers.clear();
}

void PoolConnection::dial() {
    const auto pool = pool_.lock();
    StreamOptions options;
    options.read_bytes = limits_.read_bytes;
    options.connect_timeout = limits_.connect_timeout;
    if (pool->url.tls) options.tls = limits_.tls;
    socket_ = connect_stream(loop_, pool->url.address, std::move(options), shared_from_this());
}

void PoolConnection::begin(std::shared_ptr<PoolCall> call) {
    STATOR_ASSERT(!call_ && !retired_);
    call_ = std::move(call);
    call_->sit_on(weak_from_this());
    parser_.begin(call_->request().method == "HEAD");
    answered_ = false;
    head_told_ = false;
    const TimePoint now = clock_.now();
    may_be_stale_ = served_ && now - active_ >= limits_.stale_after;
    active_ = now;
    call_->append_to(socket_->out());
    socket_->flush_later();
    arm(next_limit());
}

void PoolConnection::abandon() {
    call_.reset();
    retire();
}

void PoolConnection::retire() {
    if (std::exchange(retired_, true)) return;
    timer_.cancel();
    socket_->abort();
    if (const auto pool = pool_.lock()) pool->on_retired(*this);
}

void PoolConnection::stop() {
    const auto call = std::exchange(call_, nullptr);
    if (call) {
        call->fail_later(
            loop_, http_failure(Kind::kCancelled, ErrorCode::kCancelled, "the pool was stopped"),
            clock_.now());
    }
    retire();
}

void PoolConnection::on_open() {
    open_ = true;
    active_ = clock_.now();
    if (const auto pool = pool_.lock()) ++pool->counts.connected;
    if (!retired_) arm(next_limit());
}

// ---- its answers

void PoolConnection::on_bytes(std::string_view bytes) {
    if (retired_) return;
    active_ = clock_.now();
    if (!call_) {  // nobody asked
        retire();
        return;
    }
    const auto call = call_;
    if (!std::exchange(answered_, true)) call->forget_body();
    std::string_view piece;
    while (true) {
        const auto state = parser_.next(bytes, piece);
        if (state == HttpResponseParser::State::kBad) {
            fail(http_failure(Kind::kBadAnswer, ErrorCode::kDataLoss, parser_.reason()), active_);
            return;
        }
        if (state != HttpResponseParser::State::kHead && !std::exchange(head_told_, true)) {
            call->handler().on_head(parser_.head());
            if (call_ != call) return;  // cancelled
        }
        if (!piece.empty()) {
            call->handler().on_body(piece, active_);
            if (call_ != call) return;
        }
        if (state == HttpResponseParser::State::kDone) {
            finish(active_, !bytes.empty());
            return;
        }
        if (bytes.empty()) return;
    }
}

/// The answer is whole. The connection goes back first, so that a call that on_end() starts may
/// have it.
void PoolConnection::finish(TimePoint at, bool bytes_left) {
    const auto call = std::exchange(call_, nullptr);
    call->sit_on({});
    served_ = true;
    // Bytes behind the answer, or a request not yet sent whole, would spoil the next call.
    if (bytes_left || !parser_.keep_alive() || socket_->unsent() > 0) {
        retire();
    } else if (const auto pool = pool_.lock()) {
        pool->on_idle(shared_from_this());
    }
    if (!call_ && !retired_) arm(next_limit());
    call->end(at);
}

void PoolConnection::fail(const HttpFailure& failure, TimePoint at) {
    const auto call = std::exchange(call_, nullptr);
    call->sit_on({});
    retire();
    call->fail(failure, at);
}

void PoolConnection::on_closed(const Error& why) {
    const TimePoint now = clock_.now();
    if (call_) on_lost(why, now);
    retire();
    socket_.reset();
}

void PoolConnection::on_lost(const Error& why, TimePoint at) {
    if (!open_) {
        HttpFailure failure;
        failure.kind = Kind::kConnect;
        failure.error = why;
        fail(failure, at);
        return;
    }
    if (!answered_) {
        const auto pool = pool_.lock();
        if (may_be_stale_ && pool && !pool->stopped) {
            const auto call = std::exchange(call_, nullptr);
            retire();
            pool->serve_fresh(call);
            return;
        }
        fail(http_failure(Kind::kLost, ErrorCode::kUnavailable,
                          fmt::format("no answer: {}", why.message)),
             at);
        return;
    }
    if (socket_->peer_ended() && parser_.end() == HttpResponseParser::State::kDone) {
        finish(at, false);
        return;
    }
    fail(http_failure(Kind::kCutShort, ErrorCode::kDataLoss,
                      fmt::format("the answer was cut short: {}", why.message)),
         at);
}

// ---- time

Deadline PoolConnection::next_limit() const {
    if (!call_) return Deadline::after(active_, limits_.idle_timeout);
    // Until it is open the socket's own limit counts, and the call's.
    const Deadline silence =
        open_ ? Deadline::after(active_, limits_.silence_timeout) : Deadline::never();
    return std::min(silence, call_->request().deadline);
}

/// Set again only where an earlier moment is wanted: each byte moves the limit on, and that must
/// cost nothing. Waking early does no harm.
void PoolConnection::arm(Deadline deadline) {
    if (deadline.is_never() || armed_ <= deadline) return;
    armed_ = deadline;
    timer_.expires_after(deadline.left(clock_.now()));
    timer_.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->retired_) return;
        self->armed_ = Deadline::never();
        self->on_timer();
    });
}

void PoolConnection::on_timer() {
    const TimePoint now = clock_.now();
    const Deadline limit = next_limit();
    if (!limit.reached(now)) {
        arm(limit);
        return;
    }
    if (!call_) {
        retire();
        return;
    }
    const bool out_of_time = call_->request().deadline.reached(now);
    fail(http_failure(Kind::kTimeout, ErrorCode::kDeadlineExceeded,
                      out_of_time ? std::string("the time of the call ran out")
                                  : fmt::format("{} sent nothing for {} ms", socket_->peer(),
                                                limits_.silence_timeout.count())),
         now);
}

}  // namespace stator::net
