#include "stator/routing/replica_plane.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <utility>

#include "stator/base/log.h"
#include "stator/replicas/wire.h"
#include "stator/runtime/asio.h"

namespace stator::routing {
namespace {

/// Messages that wait for the loop; more are dropped, and digests find it.
constexpr std::uint32_t kMostQueued = 4096;
constexpr std::size_t kExpectedPeers = 8;
/// A peer that says nothing for so long gives its place to another where there are too many: files
/// are left behind by those that were killed.
constexpr std::chrono::seconds kSilent{10};
constexpr std::chrono::milliseconds kTellEvery{900};  // a timer's jitter less than a second
constexpr std::chrono::seconds kTellAgain{5};

}  // namespace

struct ReplicaPlane::Timers {
    explicit Timers(runtime::Loop& loop)
        : flush(runtime::asio_context(loop)), tick(runtime::asio_context(loop)) {}
    boost::asio::steady_timer flush;
    boost::asio::steady_timer tick;
};

ReplicaPlane::ReplicaPlane(ReplicaPlaneOptions options, runtime::Loop& loop,
                           metrics::Registry& registry, const Clock& clock)
    : options_(std::move(options)),
      loop_(loop),
      clock_(clock),
      dropped_(registry.counter("stator_router_peer_messages_dropped_total",
                                "Messages of other frontends that came faster than they were "
                                "read.")),
      rejected_(registry.counter("stator_router_peer_messages_rejected_total",
                                 "Messages of other frontends that were not understood.")),
      timers_(std::make_unique<Timers>(loop)) {}

Result<std::shared_ptr<ReplicaPlane>> ReplicaPlane::start(ReplicaPlaneOptions options,
                                                          runtime::Loop& loop,
                                                          metrics::Registry& registry,
                                                          const Clock& clock) {
    std::shared_ptr<ReplicaPlane> made(new ReplicaPlane(std::move(options), loop, registry, clock));
    auto publishers = events::start_publishers(made->options_.publisher);
    if (!publishers) return tl::unexpected(std::move(publishers.error()));
    made->publishers_ = std::move(*publishers);
    auto publisher = made->publishers_->bind(made->options_.bind, made->options_.incarnation, 1);
    if (!publisher) return tl::unexpected(std::move(publisher.error()));
    made->publisher_ = std::move(*publisher);
    auto subscribers = events::start_subscribers(made->options_.subscriber, kExpectedPeers);
    if (!subscribers) return tl::unexpected(std::move(subscribers.error()));
    made->subscribers_ = std::move(*subscribers);
    if (!loop.post([made] { made->arm_tick(); })) {
        return error(ErrorCode::kUnavailable, "the loop has ended");
    }
    return made;
}

ReplicaPlane::~ReplicaPlane() {
    followed_.clear();
    publisher_.reset();
}

void ReplicaPlane::stop() {
    auto done = std::make_shared<std::promise<void>>();
    const bool posted = loop_.post([self = shared_from_this(), done] {
        self->stopped_ = true;
        self->timers_->flush.cancel();
        self->timers_->tick.cancel();
        self->followed_.clear();
        self->pools_.clear();
        self->told_.clear();
        done->set_value();
    });
    if (posted) done->get_future().wait();
}

void ReplicaPlane::set_peers(std::vector<protocol::EventEndpoint> peers) {
    (void)loop_.post([self = shared_from_this(), peers = std::move(peers)]() mutable {
        if (!self->stopped_) self->follow(std::move(peers));
    });
}

void ReplicaPlane::add(const std::string& pool, const std::shared_ptr<PoolRouter>& router) {
    router->share([weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->wake();
    });
    (void)loop_.post([self = shared_from_this(), pool, weak = std::weak_ptr(router)] {
        if (!self->stopped_) self->pools_[pool] = weak;
    });
}

void ReplicaPlane::tell(std::string topic, std::function<std::string()> now) {
    (void)loop_.post(
        [self = shared_from_this(), topic = std::move(topic), now = std::move(now)]() mutable {
            if (!self->stopped_) self->told_.push_back({std::move(topic), std::move(now)});
        });
}

void ReplicaPlane::tell_all() {
    const TimePoint now = clock_.now();
    for (Told& told : told_) {
        if (now - told.at < kTellEvery) continue;
        std::string payload = told.now();
        if (payload == told.last && now - told.at < kTellAgain) continue;
        told.at = now;
        told.last = payload;
        publisher_->publish(told.topic, 0, std::move(payload));
    }
}

void ReplicaPlane::wake() {
    if (armed_.exchange(true)) return;
    (void)loop_.post([self = shared_from_this()] {
        if (self->stopped_) return;
        self->timers_->flush.expires_after(self->options_.flush_after);
        self->timers_->flush.async_wait([self](const boost::system::error_code& ec) {
            if (!ec && !self->stopped_) self->flush();
        });
    });
}

void ReplicaPlane::arm_tick() {
    if (stopped_) return;
    timers_->tick.expires_after(options_.digest_every);
    timers_->tick.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
        if (ec || self->stopped_) return;
        self->tick();
        self->tell_all();
        self->arm_tick();
    });
}

template <typename Each>
void ReplicaPlane::for_each_pool(Each&& each) {
    std::erase_if(pools_, [&](auto& entry) {
        const auto router = entry.second.lock();
        if (router) each(entry.first, *router);
        return router == nullptr;
    });
}

void ReplicaPlane::flush() {
    armed_.store(false);
    for_each_pool([&](const std::string& pool, PoolRouter& router) {
        std::vector<replicas::Message> out;
        router.flush(out);
        send(pool, out);
    });
}

void ReplicaPlane::tick() {
    for_each_pool([&](const std::string& pool, PoolRouter& router) {
        std::vector<replicas::Message> out;
        router.tick(out);
        send(pool, out);
    });
}

void ReplicaPlane::send(const std::string& pool, std::vector<replicas::Message>& messages) {
    for (const replicas::Message& message : messages) {
        std::string payload;
        replicas::encode(pool, message, now(), payload);
        publisher_->publish(kTopic, 0, std::move(payload));
    }
}

void ReplicaPlane::follow(std::vector<protocol::EventEndpoint> peers) {
    std::erase_if(peers, [&](const auto& p) { return p.address == endpoint().address; });
    std::erase_if(followed_, [&](const auto& entry) {
        if (std::ranges::find(peers, entry.second.endpoint) != peers.end()) return false;
        unfollow(entry.second);
        return true;
    });
    for (protocol::EventEndpoint& peer : peers) {
        if (followed_.contains(peer.address)) continue;
        if (followed_.size() >= options_.max_peers && !make_room()) {
            log_warn(
                "There are more frontends than are followed; the others' bookings are not "
                "known here.",
                {{"most", options_.max_peers}});
            return;
        }
        const std::string address = peer.address;
        // On the subscriber's thread: the message is a view.
        auto take = [weak = weak_from_this(), address](const events::Message& m) {
            const auto self = weak.lock();
            if (!self || m.incarnation == self->options_.incarnation) return;
            if (self->queued_.fetch_add(1) >= kMostQueued) {
                self->queued_.fetch_sub(1);
                self->dropped_.add();
                return;
            }
            (void)self->loop_.post([self, address, from = m.incarnation, beats = m.heartbeat,
                                    payload = std::string(m.payload)] {
                self->queued_.fetch_sub(1);
                if (!self->stopped_) self->on_message(address, from, beats, payload);
            });
        };
        auto made = subscribers_->listen(peer, {std::string(kTopic)}, std::move(take));
        if (!made) {
            log_warn("A frontend's bookings can't be followed.",
                     {{"address", address}, {"reason", made.error().message}});
            continue;
        }
        log_info("Another frontend is followed.", {{"address", address}});
        followed_.emplace(address, Followed{std::move(peer), std::move(*made), {}, clock_.now()});
    }
}

bool ReplicaPlane::make_room() {
    const auto longest = std::ranges::min_element(
        followed_, {}, [](const auto& entry) { return entry.second.heard_at; });
    if (longest == followed_.end() || clock_.now() - longest->second.heard_at < kSilent) {
        return false;
    }
    unfollow(longest->second);
    followed_.erase(longest);
    return true;
}

void ReplicaPlane::unfollow(const Followed& followed) {
    if (followed.speaks == protocol::Incarnation{}) return;
    const replicas::ReplicaId id(followed.speaks.value);
    for_each_pool([&](const std::string&, PoolRouter& router) { router.peer_gone(id); });
}

void ReplicaPlane::on_message(const std::string& address, protocol::Incarnation from,
                              bool heartbeat, std::string_view payload) {
    const auto found = followed_.find(address);
    if (found == followed_.end()) return;
    found->second.heard_at = clock_.now();
    if (found->second.speaks != from) {
        // The one before has ended, and whoever started in its place has none of its bookings.
        unfollow(found->second);
        found->second.speaks = from;
    }
    const replicas::ReplicaId id(from.value);
    if (heartbeat) {
        for_each_pool([&](const std::string&, PoolRouter& router) { router.peer_heard(id); });
        return;
    }
    auto read = replicas::decode(payload, now());
    if (!read) {
        if (read.error().code != ErrorCode::kNotFound) rejected_.add();
        return;
    }
    const std::string pool(read->pool);
    const auto at = pools_.find(pool);
    const auto router = at == pools_.end() ? nullptr : at->second.lock();
    if (!router) return;  // a pool that is not served here, or not yet
    std::vector<replicas::Message> out;
    const auto* ask = std::get_if<replicas::Ask>(&read->message);
    if (ask != nullptr && ask->of.value == options_.incarnation.value) {
        router->answer(*ask, out);
    } else {
        router->take(id, read->message, out);
    }
    send(pool, out);
}

}  // namespace stator::routing
