#include "stator/base/clock.h"

#include <gtest/gtest.h>

#include <limits>

namespace stator {
namespace {

using std::chrono::nanoseconds;
using namespace std::chrono_literals;

TEST(Deadline, IsReachedAtItsTime) {
    ManualClock clock;
    const Deadline d = Deadline::after(clock.now(), 5s);
    EXPECT_FALSE(d.is_never());
    EXPECT_FALSE(d.reached(clock.now()));
    EXPECT_EQ(d.left(clock.now()), 5s);
    clock.advance(5s - 1ns);
    EXPECT_FALSE(d.reached(clock.now()));
    EXPECT_EQ(d.left(clock.now()), 1ns);
    clock.advance(1ns);
    EXPECT_TRUE(d.reached(clock.now()));
    EXPECT_EQ(d.left(clock.now()), 0ns);
    clock.advance(1h);
    EXPECT_EQ(d.left(clock.now()), 0ns);
}

TEST(Deadline, NeverIsNever) {
    const TimePoint late{std::numeric_limits<std::int64_t>::max()};
    EXPECT_TRUE(Deadline().is_never());
    EXPECT_EQ(Deadline(), Deadline::never());
    EXPECT_FALSE(Deadline::never().reached(late));
    EXPECT_EQ(Deadline::never().left(late), nanoseconds::max());
    EXPECT_LT(Deadline::at({1}), Deadline::never());
}

TEST(Deadline, OverflowSaturates) {
    const TimePoint now{1000};
    EXPECT_TRUE(Deadline::after(now, nanoseconds::max()).is_never());
    EXPECT_TRUE(Deadline::after(now, nanoseconds::max() - 999ns).is_never());
    const Deadline last = Deadline::after(now, nanoseconds::max() - 1001ns);
    EXPECT_FALSE(last.is_never());
    EXPECT_EQ(last.left(now), nanoseconds::max() - 1001ns);
}

TEST(Deadline, DurationsOfZeroAndLessAreOver) {
    const TimePoint now{1000};
    EXPECT_TRUE(Deadline::after(now, 0ns).reached(now));
    EXPECT_TRUE(Deadline::after(now, -5s).reached(now));
    EXPECT_EQ(Deadline::after(now, -5s).left(now), 0ns);
}

TEST(Deadline, TheEarlierIsTheSmaller) {
    EXPECT_LT(Deadline::at({1}), Deadline::at({2}));
    EXPECT_EQ(std::min(Deadline::never(), Deadline::at({7})), Deadline::at({7}));
}

TEST(Clock, TimeDoesNotGoBack) {
    const Clock& clock = Clock::real();
    TimePoint last = clock.now();
    for (int i = 0; i < 1000; ++i) {
        const TimePoint now = clock.now();
        ASSERT_GE(now, last);
        last = now;
    }
    EXPECT_GT(clock.unix_seconds(), 1'700'000'000);
    EXPECT_GE(thread_cpu_seconds(), 0.0);
}

TEST(Clock, Units) {
    EXPECT_DOUBLE_EQ(to_seconds(1500ms), 1.5);
    EXPECT_DOUBLE_EQ(to_ms(1500us), 1.5);
    EXPECT_EQ(TimePoint{5} - TimePoint{2}, 3ns);
    ManualClock clock;
    clock.advance(90s);
    EXPECT_EQ(clock.unix_seconds(), 90);
}

}  // namespace
}  // namespace stator
