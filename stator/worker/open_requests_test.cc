#include "stator/worker/open_requests.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace stator::worker {
namespace {

using namespace std::chrono_literals;

TEST(OpenRequests, AClosedGateLetsNobodyIn) {
    OpenRequests open;
    EXPECT_TRUE(open.enter());
    open.close();
    EXPECT_FALSE(open.enter());
    EXPECT_EQ(open.count(), 1U);
    EXPECT_FALSE(open.wait_empty(Deadline::at({}), Clock::real()));
    open.leave();
    EXPECT_TRUE(open.wait_empty(Deadline::at({}), Clock::real()));
}

TEST(OpenRequests, AWaiterHearsOfTheLast) {
    OpenRequests open;
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            while (open.enter()) open.leave();
        });
    }
    for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(open.enter());
        open.leave();
    }
    open.close();
    EXPECT_TRUE(open.wait_empty(Deadline::never(), Clock::real()));
    threads.clear();
    EXPECT_EQ(open.count(), 0U);
}

TEST(ArrivingRequests, NoMoreThanTheEngineHasRoomFor) {
    ArrivingRequests arriving;
    const protocol::LoadReport load{
        .running = 1, .waiting = 1, .running_limit = 2, .waiting_limit = 2};
    EXPECT_TRUE(arriving.enter(3, load));
    EXPECT_TRUE(arriving.enter(3, load));
    EXPECT_FALSE(arriving.enter(3, load));
    EXPECT_TRUE(arriving.enter(0, load)) << "another rank";
    arriving.leave(3);
    EXPECT_EQ(arriving.count(3), 1U);
    EXPECT_TRUE(arriving.enter(3, load));
    EXPECT_TRUE(arriving.enter(5, {})) << "an engine that states no limits";
}

}  // namespace
}  // namespace stator::worker
