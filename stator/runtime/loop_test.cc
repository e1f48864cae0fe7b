#include "stator/runtime/loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace stator::runtime {
namespace {

TEST(Loop, RunsPostedWorkInOrderOnItsThread) {
    Loop loop("test");
    EXPECT_FALSE(loop.on_this_thread());
    loop.start();
    std::vector<int> seen;
    bool on_thread = true;
    for (int i = 0; i < 1000; ++i) {
        ASSERT_TRUE(loop.post([&, i] {
            seen.push_back(i);
            on_thread = on_thread && loop.on_this_thread();
        }));
    }
    loop.stop();
    ASSERT_EQ(seen.size(), 1000U);
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
    EXPECT_TRUE(on_thread);
}

TEST(Loop, RefusesWorkOnceStopped) {
    Loop loop("test");
    loop.start();
    loop.stop();
    loop.stop();
    auto held = std::make_shared<int>(1);
    EXPECT_FALSE(loop.post([held] {}));
    EXPECT_EQ(held.use_count(), 1);
}

TEST(Loop, WhatWasPostedBeforeStopRunsAndNothingAfter) {
    for (int round = 0; round < 50; ++round) {
        Loop loop("test");
        loop.start();
        std::atomic<int> accepted{0};
        std::atomic<int> ran{0};
        std::thread producer([&] {
            while (loop.post([&] { ++ran; })) ++accepted;
        });
        while (accepted.load() < 10) std::this_thread::yield();
        loop.stop();
        producer.join();
        EXPECT_EQ(accepted.load(), ran.load());
    }
}

TEST(Loop, TurnEndComesAfterEverythingThatWasReady) {
    Loop loop("test");
    std::string order;
    // Posted before the loop starts, so all three are ready in its first turn.
    loop.post([&] {
        order += "a";
        loop.at_turn_end([&] { order += "1"; });
    });
    loop.post([&] {
        order += "b";
        loop.at_turn_end([&] {
            order += "2";
            loop.at_turn_end([&] { order += "3"; });
        });
    });
    loop.post([&] { order += "c"; });
    loop.start();
    loop.stop();
    EXPECT_EQ(order, "abc123");
}

TEST(Loop, WorkMayPostMoreWork) {
    Loop loop("test");
    loop.start();
    std::promise<void> done;
    int left = 100;
    std::function<void()> again = [&] {
        if (--left == 0) {
            done.set_value();
        } else {
            loop.post(again);
        }
    };
    loop.post(again);
    done.get_future().wait();
    EXPECT_EQ(left, 0);
    loop.stop();
}

TEST(Loop, NeverStartedEndsWithoutRunning) {
    auto held = std::make_shared<int>(1);
    {
        Loop loop("test");
        loop.post([held] { *held = 2; });
        loop.stop();
    }
    EXPECT_EQ(*held, 1);
    EXPECT_EQ(held.use_count(), 1);
}

TEST(LoopDeathTest, MustBeStoppedBeforeItsEnd) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_DEATH(
        {
            Loop loop("test");
            loop.start();
        },
        "without stop");
}

TEST(LoopPool, HasOneThreadPerLoop) {
    LoopPool pool(3, "pool");
    pool.start();
    ASSERT_EQ(pool.size(), 3U);
    std::vector<std::thread::id> ids(3);
    for (std::size_t i = 0; i < 3; ++i) {
        pool.at(i).post([&ids, i] { ids[i] = std::this_thread::get_id(); });
    }
    pool.stop();
    EXPECT_NE(ids[0], ids[1]);
    EXPECT_NE(ids[1], ids[2]);
    EXPECT_NE(ids[0], ids[2]);
    EXPECT_NE(ids[0], std::thread::id());
}

}  // namespace
}  // namespace stator::runtime
