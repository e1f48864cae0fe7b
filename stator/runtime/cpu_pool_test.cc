#include "stator/runtime/cpu_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

namespace stator::runtime {
namespace {

TEST(CpuPool, RunsEverythingItAccepted) {
    std::atomic<int> ran{0};
    std::promise<void> all;
    CpuPool pool(3, 1000, "test-cpu");
    for (int i = 0; i < 500; ++i) {
        ASSERT_TRUE(pool.try_submit([&] {
            if (++ran == 500) all.set_value();
        }));
    }
    all.get_future().wait();
    EXPECT_EQ(ran, 500);
    EXPECT_EQ(pool.refused(), 0U);
}

TEST(CpuPool, RefusesWhereTheQueueIsFull) {
    CpuPool pool(1, 2, "test-cpu");
    std::promise<void> begun;
    std::promise<void> go;
    auto gate = go.get_future().share();
    ASSERT_TRUE(pool.try_submit([&begun, gate] {
        begun.set_value();
        gate.wait();
    }));
    begun.get_future().wait();
    EXPECT_TRUE(pool.try_submit([] {}));
    EXPECT_TRUE(pool.try_submit([] {}));
    EXPECT_EQ(pool.queued(), 2U);
    EXPECT_FALSE(pool.try_submit([] {}));
    EXPECT_EQ(pool.refused(), 1U);
    go.set_value();
}

TEST(CpuPool, StopDropsWhatHasNotBegunAndFreesIt) {
    auto held = std::make_shared<int>(1);
    std::promise<void> begun;
    std::promise<void> go;
    auto gate = go.get_future().share();
    std::atomic<bool> second_ran{false};
    CpuPool pool(1, 8, "test-cpu");
    ASSERT_TRUE(pool.try_submit([&begun, gate] {
        begun.set_value();
        gate.wait();
    }));
    begun.get_future().wait();
    ASSERT_TRUE(pool.try_submit([&second_ran, held] { second_ran = true; }));
    std::thread stopper([&] { pool.stop(); });
    while (pool.queued() != 0) std::this_thread::yield();
    go.set_value();
    stopper.join();
    EXPECT_FALSE(second_ran);
    EXPECT_EQ(held.use_count(), 1);
    EXPECT_FALSE(pool.try_submit([] {}));
    pool.stop();
}

}  // namespace
}  // namespace stator::runtime
