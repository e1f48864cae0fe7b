#include "stator/net/http_shard.h"

#include <algorithm>
#include <utility>

#include "stator/net/http_connection.h"
#include "stator/runtime/asio.h"

namespace stator::net {
namespace {

/// Often enough that a limit is overrun by a quarter at most.
std::chrono::nanoseconds sweep_interval(const HttpLimits& limits) {
    const auto least = std::min(
        {limits.header_timeout, limits.body_timeout, limits.idle_timeout, limits.write_timeout});
    return std::clamp<std::chrono::nanoseconds>(least / 4, std::chrono::milliseconds(5),
                                                std::chrono::seconds(1));
}

}  // namespace

std::shared_ptr<HttpShard> HttpShard::make(std::shared_ptr<HttpServerCore> core,
                                           runtime::Loop& loop) {
    return std::make_shared<Shard>(std::move(core), loop);
}

Shard::Shard(std::shared_ptr<HttpServerCore> core, runtime::Loop& loop)
    : core_(std::move(core)),
      loop_(loop),
      io_(runtime::asio_context(loop)),
      timer_(io_),
      sweep_every_(sweep_interval(core_->limits)) {}

void Shard::count_coming() {
    open_.fetch_add(1, std::memory_order_relaxed);
    core_->open.fetch_add(1, std::memory_order_relaxed);
}

void Shard::adopt(int fd, std::string peer, bool surplus) {
    auto connection = std::make_shared<Connection>(shared_from_this(), fd, std::move(peer));
    connection->index = connections_.size();
    connections_.push_back(connection);
    sweep_later();
    if (surplus) {
        connection->refuse_surplus();
    } else if (core_->stopping.load(std::memory_order_relaxed)) {
        connection->reset();
    } else {
        connection->start();
    }
}

void Shard::remove(Connection& connection) {
    const std::size_t i = connection.index;
    std::swap(connections_[i], connections_.back());
    connections_[i]->index = i;
    connections_.pop_back();
    open_.fetch_sub(1, std::memory_order_relaxed);
    if (core_->open.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::scoped_lock lock(core_->mutex);
        core_->all_closed.notify_all();
    }
    if (connections_.empty()) timer_.cancel();
}

void Shard::begin_stop() {
    for (const auto& connection : std::vector(connections_)) connection->begin_stop();
}

void Shard::reset_all() {
    for (const auto& connection : std::vector(connections_)) connection->reset();
}

void Shard::flush_later(std::shared_ptr<Connection> connection) {
    to_flush_.push_back(std::move(connection));
    if (to_flush_.size() == 1) {
        loop_.at_turn_end([this] { flush_all(); });
    }
}

void Shard::flush_all() {
    flushing_.swap(to_flush_);  // flushing may ask for more: a pipelined request's answer
    for (const auto& connection : flushing_) connection->flush();
    flushing_.clear();
}

void Shard::sweep_later() {
    if (std::exchange(sweeping_, true)) return;
    timer_.expires_after(
        std::chrono::duration_cast<std::chrono::steady_clock::duration>(sweep_every_));
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code&) {
        self->sweeping_ = false;
        self->sweep();
    });
}

void Shard::sweep() {
    const TimePoint time = now();
    // Backwards: closing one moves the last, already looked at, into its place.
    for (std::size_t i = connections_.size(); i-- > 0;) {
        if (i >= connections_.size()) continue;
        const auto connection = connections_[i];
        connection->check_time(time);
    }
    if (!connections_.empty()) sweep_later();
}

void Shard::add_stats(HttpServerStats& stats) const {
    const auto get = [](const Counter& c) { return c.value.load(std::memory_order_relaxed); };
    stats.connections_open += open();
    stats.requests += get(requests);
    stats.protocol_errors += get(protocol_errors);
    stats.timeouts += get(timeouts);
    stats.sends += get(sends);
    stats.bytes_sent += get(bytes_sent);
}

}  // namespace stator::net
