#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/events/publisher.h"
#include "stator/events/subscriber.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/worker_info.h"
#include "stator/replicas/messages.h"
#include "stator/routing/pool_router.h"
#include "stator/runtime/loop.h"

namespace stator::routing {

struct ReplicaPlaneOptions {
    events::PublisherHostOptions publisher;
    events::SubscriberHostOptions subscriber;
    std::string bind = "tcp://127.0.0.1:*";  ///< ZeroMQ address of the publisher
    protocol::Incarnation incarnation;       ///< of this process
    std::chrono::milliseconds flush_after{2};
    std::chrono::milliseconds digest_every{500};
    std::size_t max_peers = 64;
};

/// The routers of this process and those of others told of each other's bookings: one publisher
/// for all pools on topic "router", one subscription for each peer. What comes is worked on at a
/// loop; what is lost, digests find. Any thread.
class ReplicaPlane : public std::enable_shared_from_this<ReplicaPlane> {
  public:
    static constexpr std::string_view kTopic = "router";

    [[nodiscard]] static Result<std::shared_ptr<ReplicaPlane>> start(
        ReplicaPlaneOptions options, runtime::Loop& loop, metrics::Registry& registry,
        const Clock& clock = Clock::real());
    ~ReplicaPlane();  ///< stop() must have been called
    ReplicaPlane(const ReplicaPlane&) = delete;
    ReplicaPlane& operator=(const ReplicaPlane&) = delete;

    /// Where peers subscribe.
    [[nodiscard]] const protocol::EventEndpoint& endpoint() const { return publisher_->endpoint(); }
    /// Other frontends' publishers, all there are now; this process's own may be among them.
    void set_peers(std::vector<protocol::EventEndpoint> peers);
    /// From now on the pool's bookings are shared, as long as the router lives. Before it has
    /// traffic.
    void add(const std::string& pool, const std::shared_ptr<PoolRouter>& router);
    /// From now on what this returns (a MessagePack value) is told on `topic`, every second while
    /// it changes, every five otherwise. Called on the loop.
    void tell(std::string topic, std::function<std::string()> now);
    /// Ends it; not on the loop, which must still run.
    void stop();

  private:
    struct Followed {
        protocol::EventEndpoint endpoint;
        std::unique_ptr<events::Subscription> subscription;
        protocol::Incarnation speaks;  ///< who was heard there last
        TimePoint heard_at;            ///< or begun to listen
    };
    struct Timers;

    ReplicaPlane(ReplicaPlaneOptions options, runtime::Loop& loop, metrics::Registry& registry,
                 const Clock& clock);
    [[nodiscard]] replicas::Nanos now() const { return clock_.now() - TimePoint{}; }
    void wake();

    // On the loop.
    void follow(std::vector<protocol::EventEndpoint> peers);
    [[nodiscard]] bool make_room();
    void unfollow(const Followed& followed);
    void arm_tick();
    void flush();
    void tick();
    void on_message(const std::string& address, protocol::Incarnation from, bool heartbeat,
                    std::string_view payload);
    void send(const std::string& pool, std::vector<replicas::Message>& messages);
    template <typename Each>
    void for_each_pool(Each&& each);

    ReplicaPlaneOptions options_;
    runtime::Loop& loop_;
    const Clock& clock_;
    metrics::Counter& dropped_;
    metrics::Counter& rejected_;
    std::unique_ptr<events::PublisherHost> publishers_;
    std::shared_ptr<events::Publisher> publisher_;
    std::unique_ptr<events::SubscriberHost> subscribers_;
    std::atomic<bool> armed_{false};        ///< a flush is on its way
    std::atomic<std::uint32_t> queued_{0};  ///< messages on their way to the loop

    // Of the loop alone.
    std::unique_ptr<Timers> timers_;
    std::map<std::string, std::weak_ptr<PoolRouter>> pools_;
    std::map<std::string, Followed> followed_;  ///< by address
    struct Told {
        std::string topic;
        std::function<std::string()> now;
        std::string last = {};
        TimePoint at = {};
    };
    void tell_all();
    std::vector<Told> told_;
    bool stopped_ = false;
};

}  // namespace stator::routing
