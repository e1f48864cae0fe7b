#include "stator/cli/stop_signal.h"

#include <gtest/gtest.h>

#include <csignal>

namespace stator::cli {
namespace {

TEST(StopSignal, TheFirstOneIsHandedOver) {
    for (const int number : {SIGTERM, SIGINT}) {
        StopSignal stop;
        stop.begin_serving();
        std::raise(number);
        EXPECT_EQ(stop.wait(), number);
    }
}

TEST(StopSignal, OthersAreHandedOverAgainAndAgainAndDoNotEndAnything) {
    StopSignal stop{SIGHUP, SIGUSR2};
    std::raise(SIGHUP);
    EXPECT_EQ(stop.wait(), SIGHUP);
    stop.begin_serving();
    std::raise(SIGUSR2);
    EXPECT_EQ(stop.wait(), SIGUSR2);
    std::raise(SIGHUP);
    std::raise(SIGTERM);
    EXPECT_EQ(stop.wait(), SIGTERM);
    EXPECT_TRUE(StopSignal::ends(SIGTERM));
    EXPECT_FALSE(StopSignal::ends(SIGHUP));
}

TEST(StopSignalDeathTest, TheSecondOneEndsTheProcess) {
    EXPECT_EXIT(
        {
            StopSignal stop;
            stop.begin_serving();
            std::raise(SIGTERM);
            static_cast<void>(stop.wait());
            std::raise(SIGINT);
        },
        ::testing::ExitedWithCode(128 + SIGINT), "");
}

TEST(StopSignalDeathTest, BeforeServingTheFirstOneDoes) {
    EXPECT_EXIT(
        {
            StopSignal stop;
            std::raise(SIGTERM);
        },
        ::testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(StopSignalDeathTest, LeavesTheSignalsAsTheyWere) {
    EXPECT_EXIT(
        {
            {
                const StopSignal stop;
            }
            std::raise(SIGTERM);
        },
        ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace stator::cli
