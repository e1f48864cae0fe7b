#include "stator/router/rank_choice.h"

#include <gtest/gtest.h>

#include <array>

namespace stator::router {
namespace {

protocol::LoadReport load(std::uint32_t running, std::uint32_t waiting, std::uint32_t running_limit,
                          std::uint32_t waiting_limit) {
    protocol::LoadReport r;
    r.running = running;
    r.waiting = waiting;
    r.running_limit = running_limit;
    r.waiting_limit = waiting_limit;
    return r;
}

TEST(RankChoice, TakesTheLeastLoadedRelativeToItsLimits) {
    std::minstd_rand random(1);
    RankChoice choice(random);
    choice.consider(0, load(4, 0, 8, 8), 0, 0);
    choice.consider(1, load(6, 0, 16, 8), 0, 0);
    choice.consider(2, load(2, 0, 8, 8), 4, 0);
    EXPECT_EQ(choice.best(), 1U);
}

TEST(RankChoice, PassesOverFullOnesEvenWhereOnlyPendingOnesFillThem) {
    std::minstd_rand random(1);
    RankChoice choice(random);
    choice.consider(0, load(8, 8, 8, 8), 0, 0);
    choice.consider(1, load(8, 7, 8, 8), 1, 0);
    EXPECT_EQ(choice.best(), std::nullopt);
    choice.consider(2, load(8, 7, 8, 8), 0, 0);
    EXPECT_EQ(choice.best(), 2U);
}

TEST(RankChoice, BetweenEqualsFewestOwnStreamsThenChance) {
    std::minstd_rand random(1);
    std::array<int, 4> hits{};
    for (int i = 0; i < 3000; ++i) {
        RankChoice choice(random);
        choice.consider(0, load(1, 0, 8, 8), 0, 1);
        for (std::size_t k = 1; k < 4; ++k) choice.consider(k, load(1, 0, 8, 8), 0, 0);
        ++hits.at(choice.best().value_or(0));
    }
    EXPECT_EQ(hits[0], 0);
    for (std::size_t k = 1; k < 4; ++k) EXPECT_NEAR(hits.at(k), 1000, 150);
}

TEST(RankChoice, ARankWithoutLimitsIsNeverFull) {
    std::minstd_rand random(1);
    RankChoice choice(random);
    choice.consider(0, load(100, 100, 0, 0), 0, 0);
    EXPECT_EQ(choice.best(), 0U);
}

}  // namespace
}  // namespace stator::router
