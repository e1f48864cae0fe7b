#include "stator/sim/replicas.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <set>

#include "stator/sim/fleet_sim.h"
#include "stator/sim/scenario.h"

namespace stator::sim {
namespace {

using namespace std::chrono_literals;

struct Crowd {
    explicit Crowd(ReplicaOptions options, std::uint32_t ranks = 16) : all(options, {}, 1) {
        all.for_each([&](router::Router& router) {
            for (std::uint32_t r = 0; r < ranks; ++r) {
                router::RankDescription d;
                d.name = "w/" + std::to_string(r);
                d.prefill = {.base_s = 0.01, .per_token_s = 1e-4};
                (void)router.add_rank(d);
            }
        });
    }
    void run_until(Nanos end) {
        while (all.next() && *all.next() <= end) all.run(*all.next());
    }
    router::Decision book(std::uint64_t index, Nanos now) {
        run_until(now);
        router::RouteRequest r;
        r.prompt_tokens = 8192;
        r.blocks = blocks;
        auto decision = all.book(index, r, now);
        EXPECT_TRUE(decision);
        return *decision;
    }
    [[nodiscard]] std::vector<std::size_t> peers_bookings() {
        std::vector<std::size_t> out;
        all.for_each([&](router::Router& r) { out.push_back(r.peers_bookings()); });
        return out;
    }

    Replicas all;
    std::vector<std::uint64_t> blocks = [] {
        std::vector<std::uint64_t> b(512);
        std::iota(b.begin(), b.end(), 77);
        return b;
    }();
};

TEST(SimReplicas, ABurstOverFourRoutersStaysOnFewRanks) {
    for (const bool share : {true, false}) {
        ReplicaOptions options;
        options.replicas = 4;
        options.share = share;
        options.message_loss = 0.01;
        Crowd crowd(options);
        std::set<router::RankIndex> ranks;
        for (std::uint64_t i = 0; i < 64; ++i) ranks.insert(crowd.book(i, i * 4ms).chosen.rank);
        if (share) {
            EXPECT_LE(ranks.size(), 2U);
        } else {
            EXPECT_GE(ranks.size(), 4U);
        }
    }
}

TEST(SimReplicas, EachKnowsAllThatIsBookedWhateverIsLost) {
    ReplicaOptions options;
    options.replicas = 3;
    options.message_loss = 0.3;
    Crowd crowd(options);
    std::vector<router::BookingId> bookings;
    for (std::uint64_t i = 0; i < 200; ++i) bookings.push_back(crowd.book(i, i * 5ms).booking);
    crowd.run_until(10s);
    const auto known = crowd.peers_bookings();
    EXPECT_EQ(std::accumulate(known.begin(), known.end(), std::size_t{0}), 2U * 200U);
    for (const auto booking : bookings) crowd.all.on_end(booking, 10s);
    crowd.run_until(20s);
    EXPECT_EQ(crowd.peers_bookings(), (std::vector<std::size_t>{0, 0, 0}));
    EXPECT_GT(crowd.all.counters().missed, 0U);
}

TEST(SimReplicas, OneIsARouterAndNothingElse) {
    Crowd crowd({});
    EXPECT_FALSE(crowd.all.next());
    const auto decision = crowd.book(0, 0s);
    EXPECT_FALSE(crowd.all.next());
    EXPECT_EQ(crowd.all.front().bookings(), 1U);
    crowd.all.on_end(decision.booking, 1s);
    EXPECT_EQ(crowd.all.front().bookings(), 0U);
}

}  // namespace
}  // namespace stator::sim
