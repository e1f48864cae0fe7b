#include "stator/routing/split_account.h"

#include <gtest/gtest.h>

namespace stator::routing {
namespace {

TimePoint ms(std::int64_t n) { return {n * 1'000'000}; }

TEST(SplitAccount, FindsTheSizeFromWhichPromptsAreSplit) {
    SplitAccount a;
    EXPECT_EQ(a.break_even(), 0U);
    for (const std::uint32_t tokens : {100U, 300U, 200U}) a.decided(tokens, false);
    EXPECT_EQ(a.break_even(), 301U) << "none was split";
    for (const std::uint32_t tokens : {900U, 500U, 700U}) a.decided(tokens, true);
    EXPECT_EQ(a.break_even(), 500U);
    a.decided(5000, false);  // one that went astray
    EXPECT_EQ(a.break_even(), 500U);
    EXPECT_EQ(a.whole(), 4U);
    EXPECT_EQ(a.split(), 3U);
    a.refused();
    EXPECT_EQ(a.refused_count(), 1U);
    // What was decided long ago counts no more.
    for (std::size_t i = 0; i < SplitAccount::kRecent; ++i) a.decided(2000 + (i % 2), i % 2 == 1);
    EXPECT_EQ(a.break_even(), 2001U);
}

TEST(SplitAccount, KnowsHowLongHandoffsTook) {
    SplitAccount a;
    a.prompt_computed(1, 4, 5, 1000, ms(0));
    a.prompt_computed(2, 4, 6, 1000, ms(0));
    a.prompt_computed(3, 4, 5, 1000, ms(10));
    a.handed_over(1, ms(10));
    a.handed_over(3, ms(20));
    a.handed_over(3, ms(90));  // once
    a.ended(2);
    a.handed_over(2, ms(50));  // given up
    const auto ways = a.ways();
    ASSERT_EQ(ways.size(), 1U);
    EXPECT_EQ(ways[0].from, 4U);
    EXPECT_EQ(ways[0].to, 5U);
    EXPECT_EQ(ways[0].handoffs, 2U);
    EXPECT_NEAR(ways[0].mean_s, 0.010, 1e-9);
    EXPECT_NEAR(ways[0].tokens_per_s, 1e5, 1e-3);
    // It follows what changes.
    for (std::uint64_t i = 10; i < 60; ++i) {
        a.prompt_computed(i, 4, 5, 1000, ms(0));
        a.handed_over(i, ms(100));
    }
    EXPECT_NEAR(a.ways()[0].mean_s, 0.1, 0.001);
    a.prompt_computed(99, 5, 7, 10, ms(0));
    a.forget(5);
    a.handed_over(99, ms(1));
    EXPECT_TRUE(a.ways().empty());
}

TEST(SplitAccount, IsBounded) {
    SplitAccount a;
    for (std::uint32_t i = 0; i < SplitAccount::kMostWays + 10; ++i) {
        a.prompt_computed(i, i, i + 1, 10, ms(0));
        a.handed_over(i, ms(1));
    }
    EXPECT_EQ(a.ways().size(), SplitAccount::kMostWays);
    for (std::uint64_t i = 0; i < SplitAccount::kMostOpen + 1; ++i) {
        a.prompt_computed(i, 0, 1, 10, ms(0));
    }
    a.handed_over(SplitAccount::kMostOpen, ms(1));
    EXPECT_EQ(a.ways().front().handoffs, 1U) << "the last one was not kept";
}

}  // namespace
}  // namespace stator::routing
