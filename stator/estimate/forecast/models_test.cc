// The models against closed forms, and against statsmodels (tools/make_forecast_oracle).

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "stator/estimate/forecast/arima.h"
#include "stator/estimate/forecast/autoregression.h"
#include "stator/estimate/forecast/ewma.h"
#include "stator/estimate/forecast/kalman.h"
#include "stator/estimate/forecast/reference_kalman.h"
#include "stator/estimate/forecast/seasonal.h"
#include "stator/estimate/forecast/trend_filter.h"

namespace stator::forecast {
namespace {

using Numbers = std::vector<double>;

/// The lines of a file of the oracle; empty, and the test fails, without it.
std::vector<Numbers> oracle(const std::string& name) {
    const char* folder = std::getenv("STATOR_FORECAST_ORACLE");
    std::ifstream file((folder ? folder : "stator/estimate/forecast/testdata") + ("/" + name));
    EXPECT_TRUE(file) << "STATOR_FORECAST_ORACLE names no folder with " << name;
    std::vector<Numbers> out;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        out.emplace_back();
        for (double number = 0; words >> number;) out.back().push_back(number);
    }
    return out;
}

void expect_near(double ours, double theirs, const char* what, std::size_t window) {
    EXPECT_NEAR(ours, theirs, 1e-7 * (1 + std::abs(theirs))) << what << ", window " << window;
}

class TrendOracle : public testing::TestWithParam<const char*> {};

TEST_P(TrendOracle, StatesAndVariancesAreThoseOfStatsmodels) {
    const auto lines = oracle(GetParam());
    ASSERT_GT(lines.size(), 50U);
    const auto& v = lines[0];
    TrendFilter filter({.level = v[0], .trend = v[1], .observation = v[2]}, 0, v[3], v[4]);
    for (std::size_t t = 0; t + 1 < lines.size(); ++t) {
        const auto& line = lines[t + 1];
        if (t > 0) filter.predict();
        expect_near(filter.prediction().mean, line[1], "predicted level", t);
        expect_near(filter.prediction().variance - v[2], line[2], "its variance", t);
        filter.update(line[0]);
        expect_near(filter.level(), line[3], "level", t);
        expect_near(filter.trend(), line[4], "trend", t);
        expect_near(filter.level_variance(), line[5], "variance of the level", t);
        expect_near(filter.covariance(), line[6], "covariance", t);
        expect_near(filter.trend_variance(), line[7], "variance of the trend", t);
    }
}
INSTANTIATE_TEST_SUITE_P(Series, TrendOracle,
                         testing::Values("trend_walk.txt", "trend_counts.txt",
                                         "trend_level_only.txt"),
                         [](const auto& with) {
                             const std::string name = with.param;
                             return name.substr(0, name.find('.'));
                         });

class RegressionOracle : public testing::TestWithParam<const char*> {};

TEST_P(RegressionOracle, CoefficientsAndTheOrderChosenAreThoseOfStatsmodels) {
    const auto lines = oracle(GetParam());
    ASSERT_EQ(lines.size(), 12U);
    const auto& series = lines[0];
    double offset = 0;  // the criteria differ by what all orders have in common
    for (std::size_t i = 1; i <= 10; ++i) {
        const auto& line = lines[i];
        const auto ours =
            fit_autoregression(series, static_cast<std::size_t>(line[0]), line[1] != 0);
        const double tolerance = 1e-5;
        EXPECT_NEAR(ours.constant, line[2], tolerance * (1 + std::abs(line[2]))) << i;
        for (std::size_t lag = 0; lag < Autoregression::kMostLags; ++lag) {
            EXPECT_NEAR(ours.coefficients[lag], line[3 + lag], tolerance) << i << ", lag " << lag;
        }
        EXPECT_NEAR(ours.variance, line[7], tolerance * line[7]) << i;
        if (i == 1) offset = ours.aicc - line[8];
        EXPECT_NEAR(ours.aicc - offset, line[8], 1e-4) << i;
    }
    const auto chosen = choose_autoregression(series);
    EXPECT_EQ(static_cast<double>(chosen.lags), lines[11][0]);
    EXPECT_EQ(chosen.differenced, lines[11][1] != 0);
}
INSTANTIATE_TEST_SUITE_P(Series, RegressionOracle,
                         testing::Values("regression_second_order.txt", "regression_walk.txt",
                                         "regression_noise.txt", "regression_counts.txt"),
                         [](const auto& with) {
                             const std::string name = with.param;
                             return name.substr(0, name.find('.'));
                         });

// Of a level with wander q, observed with noise r, the gain settles at K with K² / (1 − K) = q / r.
TEST(TrendFilter, GainOfALevelSettlesWhereTheClosedFormSays) {
    for (const double ratio : {0.01, 0.1, 1.0, 5.0}) {
        TrendFilter filter({.level = ratio, .trend = 0, .observation = 1}, 0, 100, 0);
        for (int i = 0; i < 500; ++i) {
            filter.predict();
            filter.update(0);
        }
        filter.predict();
        const double before = filter.level();
        filter.update(before + 1);
        const double gain = filter.level() - before;
        EXPECT_NEAR(gain, (-ratio + std::sqrt(ratio * ratio + 4 * ratio)) / 2, 1e-9) << ratio;
    }
}

TEST(ReferenceKalman, IsTheFilterWithItsPublishedVariances) {
    ReferenceKalman reference;
    TrendFilter filter({1.0, 0.1, 10.0}, 30, 1000, 1000);
    for (int i = 0; i < 12; ++i) {
        const double value = 30 + 3 * i;
        reference.observe(value);
        if (i > 0) {
            filter.predict();
            filter.update(value);
        }
        EXPECT_EQ(reference.point(4), i < 4 ? value : filter.ahead(4)) << i;
    }
}

double normal(std::mt19937_64& random) {
    // Sum of twelve uniforms: the same on every platform.
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(random() >> 11) * 0x1p-53;
    return sum;
}

TEST(Kalman, LearnsHowMuchItsLevelWanders) {
    std::mt19937_64 random(7);
    Kalman still;
    Kalman wandering;
    double level = 1000;
    double wander = 1000;
    for (int i = 0; i < 300; ++i) {
        still.observe(level + 10 * normal(random));
        wander += 20 * normal(random);
        wandering.observe(wander + 10 * normal(random));
    }
    // Of the filters without trend, the five first: the stillest against the liveliest.
    const auto of_still = still.weights();
    const auto of_wandering = wandering.weights();
    EXPECT_GT(of_still[0] + of_still[1], 10 * (of_still[3] + of_still[4]));
    EXPECT_GT(of_wandering[3] + of_wandering[4], 10 * (of_wandering[0] + of_wandering[1]));
    EXPECT_NEAR(still.point(1), level, 5);
}

TEST(Kalman, FollowsATrendAndLetsItFade) {
    Kalman kalman;
    for (int i = 0; i < 100; ++i) kalman.observe(100 + 5.0 * i);
    EXPECT_NEAR(kalman.point(1), 600, 5);
    EXPECT_GT(kalman.point(5), kalman.point(1) + 10);
    EXPECT_LT(kalman.point(1000), 700);
}

TEST(Ewma, ChoosesTheRateThatFitsTheSeries) {
    std::mt19937_64 random(3);
    Ewma still;
    Ewma wandering;
    double wander = 1000;
    for (int i = 0; i < 300; ++i) {
        still.observe(1000 + 30 * normal(random));
        wandering.observe(wander += 30 * normal(random));
    }
    EXPECT_LE(still.rate(), 0.1);
    EXPECT_GE(wandering.rate(), 0.5);
    EXPECT_NEAR(still.point(1), 1000, 20);
}

TEST(Arima, SeesAPatternOfThree) {
    Arima arima;
    for (int i = 0; i < 90; ++i) arima.observe(i % 3 == 0 ? 40 : 30);
    EXPECT_NEAR(arima.point(1), 40, 1);  // window 90
    EXPECT_NEAR(arima.point(2), 30, 1);
    EXPECT_NEAR(arima.point(4), 40, 1);
}

TEST(Arima, TakesAnUnseenWindowForWhatItForetold) {
    Arima arima;
    for (int i = 0; i < 90; ++i) arima.observe(i % 3 == 0 ? 40 : 30);
    arima.skip();
    EXPECT_NEAR(arima.point(1), 30, 1);
    EXPECT_NEAR(arima.point(3), 40, 1);
}

double of_day(int window) { return 100 + 80 * std::sin(2 * M_PI * window / 144); }

TEST(Seasonal, KnowsTheSecondDayFromTheFirst) {
    Seasonal seasonal(600, 86'400);  // 144 windows
    for (int i = 0; i < 144 + 30; ++i) seasonal.observe(of_day(i));
    for (const int steps : {1, 6, 20, 60}) {
        EXPECT_NEAR(seasonal.point(steps), of_day(144 + 30 + steps - 1), 8) << steps;
    }
}

TEST(Seasonal, ScalesTheProfileToADayThatIsBusier) {
    Seasonal seasonal(600, 86'400);
    for (int i = 0; i < 144; ++i) seasonal.observe(of_day(i));
    for (int i = 0; i < 40; ++i) seasonal.observe(2 * of_day(i));
    EXPECT_NEAR(seasonal.point(20), 2 * of_day(40 + 19), 20);
}

TEST(Seasonal, UnseenWindowsKeepItsPlaceInTheDay) {
    Seasonal seasonal(600, 86'400);
    for (int i = 0; i < 144; ++i) seasonal.observe(of_day(i));
    for (int i = 0; i < 70; ++i) seasonal.skip();
    for (int i = 70; i < 90; ++i) seasonal.observe(of_day(i));
    EXPECT_NEAR(seasonal.point(1), of_day(90), 8);
}

}  // namespace
}  // namespace stator::forecast
