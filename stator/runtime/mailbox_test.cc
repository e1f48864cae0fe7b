#include "stator/runtime/mailbox.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace stator::runtime {
namespace {

TEST(Mailbox, DeliversWhatIsThereInOneBatch) {
    Loop loop("test");
    std::vector<std::vector<int>> batches;
    auto box = std::make_shared<Mailbox<int>>(
        loop, [&](std::vector<int>&& batch) { batches.push_back(std::move(batch)); });
    for (int i = 0; i < 5; ++i) box->push(i);  // the loop does not run yet
    loop.start();
    loop.stop();
    ASSERT_EQ(batches.size(), 1U);
    EXPECT_EQ(batches[0], (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(Mailbox, KeepsEachProducersOrderAndLosesNothing) {
    constexpr int kProducers = 4;
    constexpr int kEach = 20'000;
    Loop loop("test");
    loop.start();
    std::vector<int> next(kProducers, 0);
    int received = 0;
    bool ordered = true;
    std::promise<void> all;
    auto box = std::make_shared<Mailbox<std::pair<int, int>>>(
        loop, [&](std::vector<std::pair<int, int>>&& batch) {
            for (const auto& [producer, value] : batch) {
                ordered = ordered && next[static_cast<std::size_t>(producer)]++ == value;
            }
            received += static_cast<int>(batch.size());
            if (received == kProducers * kEach) all.set_value();
        });
    std::vector<std::thread> producers;
    for (int p = 0; p < kProducers; ++p) {
        producers.emplace_back([&box, p] {
            for (int i = 0; i < kEach; ++i) box->push({p, i});
        });
    }
    for (auto& producer : producers) producer.join();
    all.get_future().wait();
    loop.stop();
    EXPECT_TRUE(ordered);
    EXPECT_EQ(received, kProducers * kEach);
}

TEST(Mailbox, CloseDropsWhatWaits) {
    Loop loop("test");
    int calls = 0;
    auto box = std::make_shared<Mailbox<std::unique_ptr<int>>>(
        loop, [&](std::vector<std::unique_ptr<int>>&&) { ++calls; });
    box->push(std::make_unique<int>(1));
    box->close();
    box->push(std::make_unique<int>(2));
    loop.start();
    loop.stop();
    EXPECT_EQ(calls, 0);
}

TEST(Mailbox, OutlivesItsOwnerWhileADrainIsPosted) {
    Loop loop("test");
    int received = 0;
    {
        auto box = std::make_shared<Mailbox<int>>(
            loop, [&](std::vector<int>&& batch) { received += static_cast<int>(batch.size()); });
        box->push(1);
    }
    loop.start();
    loop.stop();
    EXPECT_EQ(received, 1);
}

}  // namespace
}  // namespace stator::runtime
