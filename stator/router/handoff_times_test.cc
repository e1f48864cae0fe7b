#include "stator/router/handoff_times.h"

#include <gtest/gtest.h>

#include <random>

#include "stator/router/router.h"

namespace stator::router {
namespace {

using namespace std::chrono_literals;
using protocol::Role;

constexpr double kGuess = 1.5;  // as far off as what nobody has measured may be

TEST(HandoffTimes, WhatIsThoughtHoldsUntilOneWasMade) {
    HandoffTimes times;
    EXPECT_DOUBLE_EQ(times.seconds({}, {0.001, 0.2}, 5), 0.201);
    times.observe({.method = 1}, {0.001, 0.2}, 2, kGuess, 5);
    EXPECT_DOUBLE_EQ(times.seconds({}, {0.001, 0.2}, 5), 0.201);
    EXPECT_GT(times.seconds({.method = 1}, {0.001, 0.2}, 5), 0.4);
}

TEST(HandoffTimes, LatencyAndBandwidthAreLearnedApart) {
    HandoffTimes times;
    // Thought: 1 ms and 10 GB/s. It is 4 ms and 1 GB/s, give or take.
    const auto prior = [](double gb) { return HandoffPrior{0.001, gb / 10}; };
    std::mt19937 random(1);
    std::lognormal_distribution<double> noise(0, 0.1);
    std::uniform_real_distribution<double> size(0.0001, 0.2);
    for (int i = 0; i < 60; ++i) {
        const double gb = size(random);
        times.observe({}, prior(gb), (0.004 + gb) * noise(random), kGuess, 0.1 * i);
    }
    EXPECT_NEAR(times.seconds({}, prior(0.0001), 6), 0.0041, 0.0025);
    EXPECT_NEAR(times.seconds({}, prior(0.2), 6), 0.204, 0.03);
    // Ten times the largest that was made.
    EXPECT_NEAR(times.seconds({}, prior(2), 6), 2.004, 0.4);
    EXPECT_NEAR(times.seconds({}, prior(2), 6) - times.seconds({}, prior(1), 6), 1, 0.2);
}

TEST(HandoffTimes, SmallOnesSayLittleOfLargeOnes) {
    HandoffTimes times;
    const HandoffPrior small{0.001, 0.00001};
    const HandoffPrior large{0.001, 0.1};
    for (int i = 0; i < 50; ++i) times.observe({}, small, 0.01, kGuess, i * 0.1);
    EXPECT_NEAR(times.seconds({}, small, 5), 0.01, 0.001);
    EXPECT_LT(times.seconds({}, large, 5), 0.15);
}

TEST(HandoffTimes, OneThatWasHeldUpIsNotBelievedASlowWayIs) {
    HandoffTimes times;
    const HandoffPrior prior{0.001, 0.01};
    for (int i = 0; i < 20; ++i) times.observe({}, prior, 0.011, kGuess, i * 0.1);
    times.observe({}, prior, 30, kGuess, 2);
    EXPECT_LT(times.seconds({}, prior, 2), 0.02);
    for (int i = 0; i < 200; ++i) times.observe({}, prior, 1.1, kGuess, 2 + i * 0.1);
    EXPECT_GT(times.seconds({}, prior, 22), 0.8);
}

TEST(HandoffTimes, WhatWasLearnedFades) {
    HandoffTimes times;
    const HandoffPrior prior{0.001, 0.01};
    for (int i = 0; i < 50; ++i) times.observe({}, prior, 10, kGuess, i);
    const double then = times.seconds({}, prior, 50);
    EXPECT_GT(then, 1);
    EXPECT_LT(times.seconds({}, prior, 50 + 20 * HandoffTimes::kHalfLife_s), 0.02);
}

TEST(HandoffTimes, NeverNegativeWhateverIsSeen) {
    HandoffTimes times;
    std::mt19937 random(2);
    std::uniform_real_distribution<double> at(-1, 5);
    for (int i = 0; i < 1000; ++i) {
        times.observe({}, {0.001, std::max(0.0, at(random))}, at(random), kGuess, i * 0.01);
        EXPECT_GT(times.seconds({}, {0.001, 0}, i * 0.01), 0);
        EXPECT_GT(times.seconds({}, {0.001, 5}, i * 0.01), 0);
    }
}

RankDescription rank(std::string name, Roles roles, std::vector<std::string> methods) {
    RankDescription d;
    d.name = std::move(name);
    d.roles = roles;
    d.prefill = {0.01, 1e-4, 0};
    d.step = {0.01, 0, 0};
    d.transfer_methods = std::move(methods);
    d.handoff_bytes_per_token = 100'000;
    d.host = "one";
    return d;
}

double handoff_s(const std::vector<std::string>& from, const std::vector<std::string>& to,
                 const std::string& host = "one", std::uint32_t cached_blocks = 0) {
    PolicyOptions options;
    options.disaggregation = Disaggregation::kAlways;
    Router router(options, 1);
    router.add_rank(rank("p", Role::kPrefill, from));
    RankDescription d = rank("d", Role::kDecode, to);
    d.host = host;
    router.add_rank(d);
    RouteRequest request;
    request.prompt_tokens = 10'000;  // a gigabyte
    request.split = true;
    const std::vector<Overlap> overlaps{{1, cached_blocks, cached_blocks}};
    request.overlaps = overlaps;
    const auto decision = router.book(request, 0ns);
    EXPECT_TRUE(decision);
    constexpr double kStep_s = 0.01;
    return decision ? decision->chosen.handoff_s - kStep_s : 0;
}

TEST(HandoffPrior, IsTheBytesAtTheSpeedOfTheMethod) {
    constexpr double kLittle = 2e-3;
    EXPECT_NEAR(handoff_s({"shm", "tcp"}, {"shm", "tcp"}), 1.0 / 20, kLittle);
    EXPECT_NEAR(handoff_s({"tcp"}, {"shm", "tcp"}), 1.0 / 2, kLittle);
    EXPECT_NEAR(handoff_s({"nixl", "tcp"}, {"shm", "tcp", "nixl"}), 1.0 / 10, kLittle);
    // Shared memory ends where the host does.
    EXPECT_NEAR(handoff_s({"shm", "tcp"}, {"shm", "tcp"}, "two"), 1.0 / 2, kLittle);
    EXPECT_NEAR(handoff_s({"shm", "tcp"}, {"shm", "tcp"}, ""), 1.0 / 2, kLittle);
    EXPECT_NEAR(handoff_s({"shm"}, {"shm"}, ""), 1.0 / 20, kLittle);
    EXPECT_NEAR(handoff_s({"pigeon"}, {"pigeon"}), 1.0, 2 * kLittle);
}

TEST(HandoffPrior, WhatTheDecodeRankHasCachedIsNotSent) {
    const double whole = handoff_s({"tcp"}, {"tcp"});
    EXPECT_NEAR(handoff_s({"tcp"}, {"tcp"}, "one", 500), whole / 5, 2e-3);
}

}  // namespace
}  // namespace stator::router
