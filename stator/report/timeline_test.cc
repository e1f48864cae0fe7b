#include "stator/report/timeline.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <cmath>

namespace stator::report {
namespace {

TEST(Timeline, BeginsFineAndGrowsCoarseWithoutLosingAnything) {
    TimelineRecorder recorder;
    for (int second = 0; second < 1000; ++second) {
        recorder.offered(second);
        recorder.completed(second + 0.5);
        recorder.ttft(second, 10);
    }
    const Timeline line = recorder.finish(1000);
    EXPECT_EQ(line.interval_seconds, 4.0);
    ASSERT_EQ(line.intervals.size(), 250u);
    for (const Interval& i : line.intervals) {
        EXPECT_EQ(i.offered, 4u);
        EXPECT_EQ(i.completed, 4u);
        EXPECT_EQ(i.ttft_count, 4u);
        EXPECT_NEAR(i.ttft_p99_ms, 10, 0.1);
    }
}

TEST(Timeline, InFlightIsTheMeanOverEachInterval) {
    EXPECT_TRUE(rc::check([] {
        const auto raw = *rc::gen::container<std::vector<std::pair<int, int>>>(
            rc::gen::pair(rc::gen::inRange(0, 20'000), rc::gen::inRange(0, 20'000)));
        TimelineRecorder recorder;
        double end = 1;
        double busy = 0;
        for (const auto& [begin, length] : raw) {
            recorder.under_way(begin / 100.0, (begin + length) / 100.0);
            end = std::max(end, (begin + length) / 100.0);
            busy += length / 100.0;
        }
        const Timeline line = recorder.finish(end);
        double sum = 0;
        for (std::size_t i = 0; i < line.intervals.size(); ++i) {
            const double from = static_cast<double>(i) * line.interval_seconds;
            const double to = std::min(end, from + line.interval_seconds);
            double wanted = 0;
            for (const auto& [begin, length] : raw) {
                wanted += std::max(
                    0.0, std::min(to, (begin + length) / 100.0) - std::max(from, begin / 100.0));
            }
            const double got = line.intervals[i].in_flight * std::max(0.0, to - from);
            RC_ASSERT(std::abs(got - wanted) < 1e-6);
            sum += got;
        }
        RC_ASSERT(std::abs(sum - busy) < 1e-6);
    }));
}

TEST(Timeline, TokensFallWhereTheyCome) {
    TimelineRecorder recorder;
    const std::vector<float> gaps{0.1f, 0.3f, 0.0f, 1.0f};
    recorder.tokens(0.1, 1.5, gaps, 5);
    recorder.tokens(0.0, 0.0, {}, 3);
    const Timeline line = recorder.finish(1.5);
    std::vector<std::uint64_t> tokens;
    for (const Interval& i : line.intervals) tokens.push_back(i.output_tokens);
    EXPECT_EQ(tokens, (std::vector<std::uint64_t>{5, 0, 2, 0, 0, 0, 1}));
}

TEST(Timeline, TokensNeverFallBehindTheRequestsEnd) {
    TimelineRecorder recorder;
    const std::vector<float> gaps{1e30f, 1.0f};
    recorder.tokens(0.0, 1.0, gaps, 3);
    const Timeline line = recorder.finish(1.0);
    EXPECT_EQ(line.interval_seconds, TimelineRecorder::kFirstInterval);
    EXPECT_EQ(line.intervals.back().output_tokens, 2u);
}

TEST(Timeline, EmptyRunIsOneEmptyInterval) {
    EXPECT_EQ(TimelineRecorder().finish(0).intervals.size(), 1u);
    EXPECT_EQ(TimelineRecorder().finish(0.25).intervals.size(), 1u);
    EXPECT_EQ(TimelineRecorder().finish(0.26).intervals.size(), 2u);
}

TEST(Timeline, RecentLooksBackSomeSeconds) {
    TimelineRecorder recorder;
    for (int i = 0; i < 100; ++i) recorder.completed(i * 0.1);
    const auto recent = recorder.recent(10.0);
    EXPECT_EQ(recent.seconds, 5.0);
    EXPECT_EQ(recent.completed, 50u);
    EXPECT_EQ(recorder.recent(0.1).seconds, 0.0);
}

}  // namespace
}  // namespace stator::report
