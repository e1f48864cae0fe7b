#include "stator/base/check.h"

#include <gtest/gtest.h>

namespace stator {
namespace {

TEST(CheckDeathTest, SaysWhatWhereAndWhy) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(STATOR_CHECK(1 + 1 == 3, "sums must add up"),
                 "fatal: .*check_test.cc:[0-9]+: 1 \\+ 1 == 3 \\(sums must add up\\)");
    STATOR_CHECK(1 + 1 == 2, "sums must add up");
}

#ifdef NDEBUG
TEST(Check, BugsAreCountedAndSurvived) {
    const unsigned long before = bugs_total();
    STATOR_BUG("this test does it");
    EXPECT_EQ(bugs_total(), before + 1);
}
#else
TEST(CheckDeathTest, BugsAndAssertionsAbortInDebugBuilds) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(STATOR_BUG("this test does it"), "this test does it");
    EXPECT_DEATH(STATOR_ASSERT(false), "assertion");
    EXPECT_EQ(bugs_total(), 0U);
}
#endif

}  // namespace
}  // namespace stator
