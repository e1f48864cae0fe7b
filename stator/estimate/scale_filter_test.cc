#include "stator/estimate/scale_filter.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <limits>
#include <random>

#include "stator/estimate/rank_speed.h"

namespace stator::estimate {
namespace {

/// Observations of a rank with this true scale, log-normal noise.
struct Source {
    std::mt19937_64 random;
    double std;

    double next(double scale, double predicted) {
        return predicted * scale * std::exp(std::normal_distribution<>(0, std)(random));
    }
};

double drawn_scale() {
    return std::exp2(*rc::gen::inRange(-300, 301) / 100.0);  // 1/8 … 8
}

TEST(ScaleFilter, ConvergesToTheTrueScaleUnderNoise) {
    EXPECT_TRUE(rc::check([] {
        const double scale = drawn_scale();
        Source source{std::mt19937_64(*rc::gen::arbitrary<std::uint32_t>()),
                      *rc::gen::inRange(0, 31) / 100.0};
        ScaleFilter filter;
        for (int i = 0; i < 200; ++i) {
            const double predicted = 0.01 + 0.01 * (i % 50);
            filter.observe(source.next(scale, predicted), predicted);
        }
        // The random walk keeps about sqrt(process · noise) of uncertainty: 8 % at most.
        RC_ASSERT(std::abs(std::log(filter.scale() / scale)) < 0.02 + source.std);
        RC_ASSERT(filter.relative_std() > 0.4 * source.std);
        RC_ASSERT(filter.relative_std() < 2 * source.std + 0.1);
    }));
}

TEST(ScaleFilter, TracksAChangeWithinTwelveObservations) {
    EXPECT_TRUE(rc::check([] {
        const double before = drawn_scale();
        const double factor = *rc::gen::element(0.25, 0.5, 2.0, 4.0);
        Source source{std::mt19937_64(*rc::gen::arbitrary<std::uint32_t>()), 0.1};
        ScaleFilter filter;
        for (int i = 0; i < 100; ++i) filter.observe(source.next(before, 1), 1);
        for (int i = 0; i < 12; ++i) filter.observe(source.next(before * factor, 1), 1);
        RC_ASSERT(std::abs(std::log(filter.scale() / (before * factor))) < 0.15);
    }));
}

TEST(ScaleFilter, OutliersDoNotMoveIt) {
    EXPECT_TRUE(rc::check([] {
        const double scale = drawn_scale();
        Source source{std::mt19937_64(*rc::gen::arbitrary<std::uint32_t>()), 0.1};
        ScaleFilter filter;
        for (int i = 0; i < 50; ++i) filter.observe(source.next(scale, 1), 1);
        for (int i = 0; i < 200; ++i) {
            // Every tenth took twenty times as long: a pause of the process, a lost packet.
            const double wrong = i % 10 == 0 ? 20 : 1;
            filter.observe(source.next(scale, 1) * wrong, 1);
        }
        RC_ASSERT(std::abs(std::log(filter.scale() / scale)) < 0.15);
        RC_ASSERT(filter.outliers() >= 20U);
    }));
}

TEST(ScaleFilter, IsPositiveAndFiniteWhateverIsFedIn) {
    EXPECT_TRUE(rc::check([](const std::vector<std::pair<double, double>>& observations) {
        ScaleFilter filter;
        const double odd[] = {0.0,
                              -1.0,
                              std::numeric_limits<double>::infinity(),
                              std::numeric_limits<double>::quiet_NaN(),
                              std::numeric_limits<double>::denorm_min(),
                              std::numeric_limits<double>::max()};
        for (const auto& [observed, predicted] : observations) {
            filter.observe(std::abs(observed), std::abs(predicted));
            filter.observe(*rc::gen::elementOf(std::vector<double>(odd, odd + 6)), predicted,
                           *rc::gen::elementOf(std::vector<double>(odd, odd + 6)));
            RC_ASSERT(std::isfinite(filter.scale()));
            RC_ASSERT(filter.scale() > 0);
            RC_ASSERT(std::isfinite(filter.relative_std()));
            RC_ASSERT(filter.relative_std() > 0);
        }
    }));
}

TEST(RankSpeed, ScalesThePriors) {
    RankSpeed speed({0.01, 1e-4, 1e-9}, {0.005, 1e-5, 1e-8});
    EXPECT_NEAR(speed.prefill_s(1000, 500), 0.01 + 0.1 + 1e-9 * 1000 * 1000, 1e-12);
    EXPECT_NEAR(speed.step_s(10, 10'000), 0.005 + 1e-4 + 1e-4, 1e-12);
    for (int i = 0; i < 50; ++i) {
        speed.observe_prefill(0.5, 0.25);
        speed.observe_step(0.0026, 10, 10'000);
    }
    EXPECT_NEAR(speed.prefill_s(1000, 500), 2 * 0.111, 0.003);
    EXPECT_NEAR(speed.step_s(10, 10'000), 0.0026, 1e-4);
}

TEST(TimeModel, RefusesFactorsThatMakeNoTime) {
    EXPECT_TRUE(is_valid(PrefillTime{}));
    EXPECT_FALSE(is_valid(PrefillTime{0, 0, 0}));
    EXPECT_FALSE(is_valid(PrefillTime{-1, 1, 1}));
    EXPECT_FALSE(is_valid(DecodeStepTime{std::numeric_limits<double>::quiet_NaN(), 1, 1}));
}

TEST(ScaleFilter, StartsWhereOthersAreUntilSomethingIsSeen) {
    ScaleFilter filter;
    filter.start_at(3.0);
    EXPECT_DOUBLE_EQ(filter.scale(), 3.0);
    for (const double nothing : {0.0, -1.0, std::nan(""), HUGE_VAL}) filter.start_at(nothing);
    EXPECT_DOUBLE_EQ(filter.scale(), 3.0);
    filter.observe(3.1, 1.0);
    const double seen = filter.scale();
    EXPECT_NEAR(seen, 3.1, 0.1);
    filter.start_at(1.0);
    EXPECT_EQ(filter.scale(), seen);
}

}  // namespace
}  // namespace stator::estimate
