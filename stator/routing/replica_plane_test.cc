#include "stator/routing/replica_plane.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "stator/routing/fake_worker.h"

namespace stator::routing {
namespace {

using namespace std::chrono_literals;

/// Waits at most ten seconds.
bool soon(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(5ms);
    }
    return false;
}

/// A frontend as far as routing goes.
struct Front {
    Front(std::uint64_t incarnation, const std::vector<std::shared_ptr<FakeWorker>>& workers,
          events::CurveKeys keys = {}) {
        loop.start();
        std::vector<PoolRank> ranks;
        for (const auto& worker : workers) ranks.push_back({worker, 0, pending});
        (void)router->set_ranks(ranks);
        ReplicaPlaneOptions options;
        options.incarnation = protocol::Incarnation(incarnation);
        options.digest_every = 50ms;
        options.publisher.heartbeat = 50ms;
        options.publisher.curve = keys;
        options.subscriber.curve = std::move(keys);
        auto made = ReplicaPlane::start(std::move(options), loop, registry);
        EXPECT_TRUE(made) << made.error().message;
        plane = *made;
        plane->add("pool", router);
    }
    ~Front() { stop(); }
    void stop() {
        if (!plane) return;
        plane->stop();
        plane.reset();
        loop.stop();
    }
    Route choose(std::uint32_t first, std::size_t tokens = 6400) {
        protocol::GenerateRequest r;
        for (std::size_t i = 0; i < tokens; ++i) {
            r.prompt.push_back(first + static_cast<std::uint32_t>(i));
        }
        auto route = router->choose(r, {});
        EXPECT_TRUE(route) << route.error().message;
        return route.value_or(Route{});
    }
    std::size_t peers_bookings() const { return router->state().peers_bookings; }

    metrics::Registry registry;
    runtime::Loop loop{"front"};
    std::shared_ptr<std::atomic<std::uint32_t>> pending =
        std::make_shared<std::atomic<std::uint32_t>>(0);
    std::shared_ptr<PoolRouter> router =
        std::make_shared<PoolRouter>(PoolRouterOptions{}, card(), nullptr, registry, Clock::real());
    std::shared_ptr<ReplicaPlane> plane;
};

class ReplicaPlaneTest : public ::testing::Test {
  protected:
    ReplicaPlaneTest() {
        for (const char* name : {"a", "b", "c", "d"}) {
            workers_.push_back(std::make_shared<FakeWorker>(name, loop_));
        }
    }
    static void introduce(Front& a, Front& b) {
        const std::vector both{a.plane->endpoint(), b.plane->endpoint()};
        a.plane->set_peers(both);  // with its own: that is passed over
        b.plane->set_peers(both);
    }

    runtime::Loop loop_{"workers"};
    std::vector<std::shared_ptr<FakeWorker>> workers_;
};

TEST_F(ReplicaPlaneTest, BookingsAreKnownToTheOtherUntilTheyEnd) {
    Front a(1, workers_);
    Front b(2, workers_);
    const Route before = a.choose(0);  // when nobody listens
    introduce(a, b);
    ASSERT_TRUE(soon([&] { return b.peers_bookings() == 1; }));
    const Route sibling = b.choose(0);
    EXPECT_EQ(b.router->state().ranks[sibling.rank].name,
              a.router->state().ranks[before.rank].name);
    ASSERT_TRUE(soon([&] { return a.peers_bookings() == 1; }));
    const Route more = a.choose(100'000);
    ASSERT_TRUE(soon([&] { return b.peers_bookings() == 2; }));
    a.router->ended(before.booking);
    a.router->ended(more.booking);
    b.router->ended(sibling.booking);
    EXPECT_TRUE(soon([&] { return a.peers_bookings() + b.peers_bookings() == 0; }));
    ASSERT_TRUE(soon([&] { return b.router->state().peers.front().in_step; }));
    EXPECT_EQ(b.router->state().peers.front().id.value, 1U);
}

TEST_F(ReplicaPlaneTest, WhatChangesIsToldToWhoListens) {
    std::atomic<int> state{0};
    Front a(1, workers_);
    a.plane->tell("demand", [&state] { return std::string(1, static_cast<char>(state.load())); });
    auto host = events::start_subscribers({}, 1);
    ASSERT_TRUE(host) << host.error().message;
    std::atomic<int> heard{-1};
    std::atomic<bool> strange{false};
    auto listening =
        (*host)->listen(a.plane->endpoint(), {"demand"}, [&](const events::Message& m) {
            if (m.heartbeat) return;
            if (m.topic != "demand" || m.payload.size() != 1) {
                strange = true;
            } else {
                heard = m.payload[0];
            }
        });
    ASSERT_TRUE(listening) << listening.error().message;
    // Told again though nothing changed: who came late hears it too.
    EXPECT_TRUE(soon([&] { return heard == 0; }));
    state = 7;
    EXPECT_TRUE(soon([&] { return heard == 7; }));
    EXPECT_FALSE(strange);
    a.stop();
    listening->reset();
}

TEST_F(ReplicaPlaneTest, OneThatFallsSilentIsDropped) {
    Front b(2, workers_);
    auto a = std::make_unique<Front>(1, workers_);
    introduce(*a, b);
    (void)a->choose(0);
    ASSERT_TRUE(soon([&] { return b.peers_bookings() == 1; }));
    a.reset();
    // Silence: three seconds.
    const TimePoint begin = Clock::real().now();
    ASSERT_TRUE(soon([&] { return b.peers_bookings() == 0; }));
    EXPECT_GT(Clock::real().now() - begin, 2s);
    EXPECT_EQ(b.router->state().peer_counters.bookings_lost, 1U);
}

TEST_F(ReplicaPlaneTest, WhoIsNotNamedAnyMoreIsDroppedAtOnce) {
    Front a(1, workers_);
    Front b(2, workers_);
    introduce(a, b);
    (void)a.choose(0);
    ASSERT_TRUE(soon([&] { return b.peers_bookings() == 1; }));
    b.plane->set_peers({});
    EXPECT_TRUE(soon([&] { return b.peers_bookings() == 0; }));
    EXPECT_TRUE(b.router->state().peers.empty());
}

TEST_F(ReplicaPlaneTest, EncryptedForThoseWithKeys) {
    const auto keys = events::make_curve_keys();
    Front a(1, workers_, keys);
    Front b(2, workers_, events::make_curve_keys());
    Front stranger(3, workers_);
    EXPECT_EQ(a.plane->endpoint().curve_public_key, keys.public_key);
    introduce(a, b);
    protocol::EventEndpoint plain = a.plane->endpoint();
    plain.curve_public_key.clear();
    stranger.plane->set_peers({plain});
    (void)a.choose(0);
    ASSERT_TRUE(soon([&] { return b.peers_bookings() == 1; }));
    EXPECT_EQ(stranger.peers_bookings(), 0U);
}

TEST_F(ReplicaPlaneTest, ManyThreadsBookWhileAllIsShared) {
    Front a(1, workers_);
    Front b(2, workers_);
    introduce(a, b);
    std::vector<std::jthread> threads;
    for (std::uint32_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Front& mine = t % 2 == 0 ? a : b;
            for (std::uint32_t i = 0; i < 100; ++i) {
                const Route route = mine.choose((t * 100 + i) * 1000, 320);
                mine.router->first_token(route, 0, TimePoint{});
                mine.router->ended(route.booking);
            }
        });
    }
    threads.clear();
    EXPECT_TRUE(soon([&] { return a.peers_bookings() + b.peers_bookings() == 0; }));
    EXPECT_TRUE(soon([&] {
        const auto state = a.router->state();
        return !state.peers.empty() && state.peers.front().in_step;
    }));
    EXPECT_GT(a.router->state().peer_counters.deltas, 0U);
}

}  // namespace
}  // namespace stator::routing
