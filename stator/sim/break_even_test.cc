#include "stator/sim/break_even.h"

#include <gtest/gtest.h>

namespace stator::sim {
namespace {

TEST(BreakEven, IsWhereFewestAreOnTheWrongSide) {
    BreakEven b;
    for (std::uint32_t n = 0; n < 1000; ++n) b.note(n, n >= 400);
    EXPECT_EQ(b.size().tokens, 400U);
    EXPECT_EQ(b.size().wrong_percent, 0);
    EXPECT_EQ(b.splits(), 600U);
    for (int i = 0; i < 10; ++i) b.note(900, false);
    EXPECT_EQ(b.size().tokens, 400U);
    EXPECT_NEAR(b.size().wrong_percent, 1, 0.02);
}

TEST(BreakEven, OfOneKindIsBeyondAll) {
    BreakEven whole;
    BreakEven split;
    for (std::uint32_t n = 10; n < 20; ++n) {
        whole.note(n, false);
        split.note(n, true);
    }
    EXPECT_EQ(whole.size().tokens, 20U);
    EXPECT_EQ(split.size().tokens, 10U);
    EXPECT_EQ(BreakEven().size().tokens, 0U);
}

}  // namespace
}  // namespace stator::sim
