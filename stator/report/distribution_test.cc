#include "stator/report/distribution.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace stator::report {
namespace {

/// numpy.percentile, on the samples themselves.
double oracle(std::vector<double> sorted, double share) {
    std::ranges::sort(sorted);
    const double rank = share * static_cast<double>(sorted.size() - 1);
    const auto k = static_cast<std::size_t>(rank);
    const double next = sorted[std::min(k + 1, sorted.size() - 1)];
    return sorted[k] + (next - sorted[k]) * (rank - static_cast<double>(k));
}

/// Positive values over many octaves.
std::vector<double> some_values() {
    const auto raw = *rc::gen::container<std::vector<std::pair<std::uint32_t, int>>>(
        rc::gen::pair(rc::gen::arbitrary<std::uint32_t>(), rc::gen::inRange(-18, 30)));
    std::vector<double> values;
    for (const auto& [mantissa, octave] : raw) {
        values.push_back(std::ldexp(1.0 + mantissa / 4294967296.0, octave));
    }
    return values;
}

TEST(Distribution, PercentilesAreThoseOfTheSortedSamplesWithinTheStatedError) {
    EXPECT_TRUE(rc::check([] {
        const std::vector<double> values = some_values();
        RC_PRE(!values.empty());
        const unsigned bits = *rc::gen::element(5u, 6u, 9u);
        Distribution d(bits);
        for (const double v : values) d.add(v);
        const double bound = d.max_relative_error() * (1 + 1e-9);
        for (const double share : {0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0}) {
            const double wanted = oracle(values, share);
            RC_ASSERT(std::abs(d.percentile(share) - wanted) <= bound * wanted);
        }
    }));
}

TEST(Distribution, ErrorIsOneInAThousandAtMost) {
    EXPECT_LE(Distribution().max_relative_error(), 0.001);
}

TEST(Distribution, CountMeanAndEndsAreExact) {
    EXPECT_TRUE(rc::check([] {
        const std::vector<double> values = some_values();
        RC_PRE(!values.empty());
        Distribution d;
        d.add_many(std::span<const double>(values), 1.0);
        RC_ASSERT(d.count() == values.size());
        RC_ASSERT(d.min() == *std::ranges::min_element(values));
        RC_ASSERT(d.max() == *std::ranges::max_element(values));
        const double sum = std::accumulate(values.begin(), values.end(), 0.0);
        RC_ASSERT(d.mean() == sum / static_cast<double>(values.size()));
        RC_ASSERT(d.percentile(0) == d.min());
        RC_ASSERT(d.percentile(1) == d.max());
    }));
}

TEST(Distribution, MergedIsAsAddedToOne) {
    EXPECT_TRUE(rc::check([] {
        const std::vector<double> left = some_values();
        const std::vector<double> right = some_values();
        Distribution a;
        Distribution b;
        Distribution both;
        for (const double v : left) a.add(v), both.add(v);
        for (const double v : right) b.add(v), both.add(v);
        a.merge(b);
        Summary merged = a.summary();
        Summary added = both.summary();
        RC_ASSERT(std::abs(merged.mean - added.mean) <= 1e-12 * added.mean);
        merged.mean = added.mean;  // the order of additions may show in the last bits
        RC_ASSERT(merged == added);
    }));
}

TEST(Distribution, FewSamplesInterpolateAsNumpyDoes) {
    Distribution d;
    d.add(10);
    d.add(20);
    EXPECT_DOUBLE_EQ(d.percentile(0.5), 15);
    EXPECT_DOUBLE_EQ(d.percentile(0.9), 19);
}

TEST(Distribution, EmptyIsZeros) {
    EXPECT_EQ(Distribution().summary(), Summary{});
    EXPECT_EQ(Distribution().percentile(0.5), 0);
}

TEST(Distribution, OddValuesAreCountedAndHarmless) {
    Distribution d;
    for (const double v : {-1.0, std::numeric_limits<double>::quiet_NaN(), 0.0, 1e-300,
                           std::numeric_limits<double>::infinity(), 1e300}) {
        d.add(v);
    }
    EXPECT_EQ(d.count(), 6u);
    EXPECT_EQ(d.min(), 0);
    EXPECT_EQ(d.max(), Distribution::kBeyond);
    EXPECT_TRUE(std::isfinite(d.mean()));
    EXPECT_EQ(d.percentile(0.5), 0);
}

TEST(Distribution, SummaryCurveAscendsAndFitsItsBound) {
    EXPECT_TRUE(rc::check([] {
        Distribution d;
        for (const double v : some_values()) d.add(v);
        RC_PRE(d.count() > 0u);
        const Summary s = d.summary();
        RC_ASSERT(s.quantiles.size() <= Report::kMaxQuantiles);
        RC_ASSERT(s.quantiles.front().value == s.min);
        RC_ASSERT(s.quantiles.back().value == s.max);
        RC_ASSERT(std::ranges::is_sorted(s.quantiles, {}, &Quantile::share));
        RC_ASSERT(std::ranges::is_sorted(s.quantiles, {}, &Quantile::value));
    }));
}

TEST(Distribution, ScaleAppliesToEachValue) {
    const std::vector<float> seconds{0.5f, 0.25f};
    Distribution d;
    d.add_many(std::span<const float>(seconds), 1000.0);
    EXPECT_EQ(d.mean(), 375);
    EXPECT_EQ(d.max(), 500);
}

}  // namespace
}  // namespace stator::report
