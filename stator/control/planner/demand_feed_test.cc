#include "stator/control/planner/demand_feed.h"

#include <gtest/gtest.h>

namespace stator::control {
namespace {

using namespace std::chrono_literals;
using protocol::DemandTotals;

DemandTotals totals(std::uint64_t offered, std::uint64_t fast = 0, std::uint64_t slow = 0) {
    DemandTotals t;
    t.model = "m";
    t.offered = offered;
    t.prompt_tokens = offered * 10;
    t.ttft = {.bounds = {1, 2}, .counts = {fast, slow, 0}, .sum_s = static_cast<double>(slow)};
    return t;
}

TEST(DemandFeed, DifferencesOfSeveralFrontendsAddUp) {
    DemandFeed feed;
    const TimePoint t0{};
    EXPECT_TRUE(feed.take(t0).empty());
    feed.tell(1, {totals(5)}, t0 + 1s, true);
    feed.tell(2, {totals(1000)}, t0 + 1s);  // an old one: where it stands is where it begins
    auto window = feed.take(t0);
    ASSERT_EQ(window.size(), 1U);
    EXPECT_EQ(window["m"].offered, 5U);
    feed.tell(1, {totals(7, 1, 1)}, t0 + 2s);
    feed.tell(2, {totals(1003, 2, 0)}, t0 + 2s);
    window = feed.take(t0);
    EXPECT_EQ(window["m"].offered, 5U);
    EXPECT_EQ(window["m"].prompt_tokens, 50U);
    EXPECT_EQ(window["m"].ttft.counts, (std::vector<std::uint64_t>{3, 1, 0}));
    EXPECT_TRUE(feed.take(t0).empty());
    EXPECT_EQ(feed.heard_at(), t0 + 2s);
}

TEST(DemandFeed, OneThatBeganAnewCountsFromNothing) {
    DemandFeed feed;
    feed.tell(1, {totals(50)}, TimePoint{}, true);
    (void)feed.take(TimePoint{});
    feed.tell(1, {totals(3)}, TimePoint{});
    EXPECT_EQ(feed.take(TimePoint{})["m"].offered, 3U);
}

TEST(DemandFeed, TheSilentAreForgottenAndTheirNumberIsBounded) {
    DemandFeed feed;
    for (std::uint64_t i = 0; i < DemandFeed::kMaxSources; ++i) {
        feed.tell(i, {totals(1)}, TimePoint{} + 1s);
    }
    feed.tell(9999, {totals(1)}, TimePoint{} + 9s, true);
    EXPECT_TRUE(feed.take(TimePoint{} + 5s).empty());  // no room; now there is
    feed.tell(9999, {totals(1)}, TimePoint{} + 9s, true);
    EXPECT_EQ(feed.take(TimePoint{})["m"].offered, 1U);
}

TEST(DemandFeed, BoundsThatChangeDoNotMix) {
    DemandTotals a = totals(1, 1, 0);
    DemandTotals b = totals(1, 1, 0);
    b.ttft.bounds = {5};
    b.ttft.counts = {7, 0};
    add(a, b);
    EXPECT_EQ(a.offered, 2U);
    EXPECT_EQ(a.ttft.counts, (std::vector<std::uint64_t>{1, 0, 0}));
}

}  // namespace
}  // namespace stator::control
