#include "stator/report/compare.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <cmath>
#include <numbers>
#include <random>

#include "stator/codec/json.h"

namespace stator::report {
namespace {

using testing::HasSubstr;

Report with_ttft(double ms) {
    Report r;
    r.ttft.count = 100;
    r.ttft.p50 = ms;
    r.achieved_rate = 1000 / ms;
    return r;
}

std::vector<Report> reports(const std::vector<double>& ttft) {
    std::vector<Report> all;
    for (const double ms : ttft) all.push_back(with_ttft(ms));
    return all;
}

const MetricRatio& metric(const Comparison& c, std::string_view name) {
    for (const MetricRatio& m : c.metrics) {
        if (m.metric == name) return m;
    }
    static const MetricRatio kNone;
    return kNone;
}

TEST(Compare, RatioAndIntervalAreThoseOfTheLogarithms) {
    // Logarithms of the ratios: 0.1, 0.2, 0.3; t(2) = 4.303.
    const auto c = compare(reports({100 * std::exp(0.1), 50 * std::exp(0.2), 80 * std::exp(0.3)}),
                           reports({100, 50, 80}), "a", "b");
    const MetricRatio& m = metric(c, "TTFT p50");
    const double half = 4.303 * 0.1 / std::sqrt(3.0);
    EXPECT_NEAR(m.ratio, std::exp(0.2), 1e-9);
    EXPECT_NEAR(m.low, std::exp(0.2 - half), 1e-9);
    EXPECT_NEAR(m.high, std::exp(0.2 + half), 1e-9);
    EXPECT_EQ(m.pairs, 3u);
    EXPECT_EQ(m.verdict, Verdict::kNoDifference);
    EXPECT_NEAR(m.a / m.b, m.ratio, 1e-9);
}

TEST(Compare, VerdictsKnowWhichWayIsBetter) {
    const auto c = compare(reports({50, 51, 49}), reports({100, 101, 102}), "a", "b");
    EXPECT_EQ(metric(c, "TTFT p50").verdict, Verdict::kBetter);
    EXPECT_EQ(metric(c, "achieved rate").verdict, Verdict::kBetter);
    const auto back = compare(reports({100, 101, 102}), reports({50, 51, 49}), "a", "b");
    EXPECT_EQ(metric(back, "TTFT p50").verdict, Verdict::kWorse);
    EXPECT_EQ(metric(back, "achieved rate").verdict, Verdict::kWorse);
}

TEST(Compare, SwappedSidesGiveTheInverse) {
    EXPECT_TRUE(rc::check([] {
        const auto values = *rc::gen::container<std::vector<std::pair<int, int>>>(
            rc::gen::pair(rc::gen::inRange(1, 1000), rc::gen::inRange(1, 1000)));
        RC_PRE(values.size() >= 2u);
        std::vector<double> a;
        std::vector<double> b;
        for (const auto& [of_a, of_b] : values) a.push_back(of_a), b.push_back(of_b);
        const auto there = compare(reports(a), reports(b), "a", "b");
        const auto back = compare(reports(b), reports(a), "b", "a");
        const MetricRatio& m = metric(there, "TTFT p50");
        const MetricRatio& n = metric(back, "TTFT p50");
        RC_ASSERT(std::abs(m.ratio * n.ratio - 1) < 1e-9);
        RC_ASSERT(std::abs(m.low * n.high - 1) < 1e-9);
        RC_ASSERT(m.low <= m.ratio && m.ratio <= m.high);
    }));
}

TEST(Compare, IntervalHoldsItsNinetyFivePercentWithFivePairs) {
    std::mt19937_64 engine(11);
    const auto noise = [&] {
        const auto uniform = [&] { return (static_cast<double>(engine() >> 11) + 0.5) * 0x1p-53; };
        return std::exp(0.1 * std::sqrt(-2 * std::log(uniform())) *
                        std::cos(2 * std::numbers::pi * uniform()));
    };
    constexpr double kTrue = 1.2;
    int inside = 0;
    constexpr int kTrials = 2000;
    for (int trial = 0; trial < kTrials; ++trial) {
        std::vector<double> a;
        std::vector<double> b;
        for (int pair = 0; pair < 5; ++pair) {
            const double drift = noise();  // of the machine: falls on both sides
            a.push_back(100 * kTrue * drift * noise());
            b.push_back(100 * drift * noise());
        }
        const auto c = compare(reports(a), reports(b), "a", "b");
        const MetricRatio& m = metric(c, "TTFT p50");
        if (m.low <= kTrue && kTrue <= m.high) ++inside;
    }
    // Standard deviation of the share: 0.5 points.
    EXPECT_NEAR(inside / static_cast<double>(kTrials), 0.95, 0.02);
}

TEST(Compare, TooFewPairsHaveNoInterval) {
    const auto c = compare(reports({100, 90}), reports({50}), "a", "b");
    const MetricRatio& m = metric(c, "TTFT p50");
    EXPECT_EQ(m.verdict, Verdict::kTooFew);
    EXPECT_NEAR(m.ratio, 2, 1e-12);
    ASSERT_EQ(c.warnings.size(), 1u);
    EXPECT_THAT(c.warnings[0], HasSubstr("2 runs of A and 1 of B"));
    EXPECT_TRUE(compare({}, {}, "a", "b").metrics.empty());
}

TEST(Compare, PartialRunsAreLeftOutAndFailuresTold) {
    auto a = reports({100, 100, 1});
    auto b = reports({100, 100, 100});
    a[2].partial = true;
    b[0].requests = 3;
    const auto c = compare(a, b, "a", "b");
    EXPECT_EQ(c.pairs, 2u);
    EXPECT_EQ(metric(c, "TTFT p50").pairs, 2u);
    EXPECT_NEAR(metric(c, "TTFT p50").ratio, 1, 1e-12);
    EXPECT_THAT(c.warnings, testing::ElementsAre(HasSubstr("In pair 1, 0 requests of A and 3 of B"),
                                                 HasSubstr("Pair 3 is left out")));
}

TEST(Compare, TableAndJsonSayTheSame) {
    const auto c = compare(reports({50, 51, 49}), reports({100, 101, 102}), "new\x1b", "\xff");
    const std::string table = to_table(c, {});
    EXPECT_THAT(table, HasSubstr("A better"));
    EXPECT_THAT(table, HasSubstr("0.495"));
    EXPECT_THAT(table, testing::Not(HasSubstr("\x1b")));
    codec::JsonDocument document;
    const auto root = document.parse(to_json(c));
    ASSERT_TRUE(root.has_value());
    EXPECT_EQ(root->find("pairs").as_uint(), 3u);
    bool found = false;
    root->find("metrics").each_element([&](std::size_t, codec::JsonView m) {
        found = found || (m.find("metric").as_string() == "TTFT p50" &&
                          m.find("verdict").as_string() == "better");
        return true;
    });
    EXPECT_TRUE(found);
}

}  // namespace
}  // namespace stator::report
