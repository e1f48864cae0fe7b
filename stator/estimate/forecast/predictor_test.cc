#include "stator/estimate/forecast/predictor.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace stator::forecast {
namespace {

std::unique_ptr<Predictor> made(std::string_view name, PredictorOptions options = {}) {
    auto predictor = make_predictor(name, options);
    EXPECT_TRUE(predictor.has_value());
    return std::move(*predictor);
}

TEST(Predictors, AnUnknownNameIsAnswereredWithTheKnownOnes) {
    const auto unknown = make_predictor("prophet", {});
    ASSERT_FALSE(unknown.has_value());
    for (const auto name : predictor_names()) {
        EXPECT_NE(unknown.error().message.find(name), std::string::npos);
        EXPECT_EQ(made(name)->name(), name);
    }
}

TEST(Predictors, SayNothingBeforeTheyHaveSeenAnything) {
    for (const auto name : predictor_names()) {
        const auto predictor = made(name);
        predictor->observe_missing();
        predictor->observe(std::nan(""));
        const auto forecast = predictor->forecast(3);
        EXPECT_EQ(forecast.mean, 0) << name;
        EXPECT_EQ(forecast.at(0.99), 0) << name;
    }
}

/// A value as it may come from a fleet that is in trouble.
double drawn_value() {
    switch (*rc::gen::inRange(0, 12)) {
        case 0:
            return 0;
        case 1:
            return 1;
        case 2:
            return std::numeric_limits<double>::quiet_NaN();
        case 3:
            return -5;
        case 4:
            return std::numeric_limits<double>::infinity();
        case 5:
            return 1e300;
        case 6:
            return 1e-300;
        case 7:
            return 100.0 * *rc::gen::inRange(1, 1000);
        default:
            return *rc::gen::inRange(0, 50);
    }
}

TEST(Predictors, WhateverComesForecastsAreFiniteAndInOrder) {
    for (const auto name : predictor_names()) {
        EXPECT_TRUE(rc::check([&] {
            const bool counts = *rc::gen::arbitrary<bool>();
            const auto predictor = made(name, {.counts = counts});
            for (int i = 0, n = *rc::gen::inRange(1, 120); i < n; ++i) {
                if (*rc::gen::inRange(0, 8) == 0) {
                    predictor->observe_missing();
                } else {
                    predictor->observe(drawn_value());
                }
                const auto forecast = predictor->forecast(*rc::gen::inRange(1, 200));
                RC_ASSERT(std::isfinite(forecast.mean) && forecast.mean >= 0);
                double least = 0;
                for (const double value : forecast.quantiles) {
                    RC_ASSERT(std::isfinite(value) && value >= least);
                    if (counts && value < 1e15) RC_ASSERT(value == std::round(value));
                    least = value;
                }
            }
        })) << name;
    }
}

int poisson(std::mt19937_64& random, double mean) {
    double left = std::exp(-mean);
    int out = -1;
    for (double product = 1; product > left; ++out) {
        product *= static_cast<double>((random() >> 11) + 1) * 0x1p-53;
    }
    return out;
}

TEST(Forecasts, AreLinearBetweenTheirQuantilesAndStayBeyondThem) {
    Forecast forecast;
    for (std::size_t q = 0; q < kQuantiles.size(); ++q) forecast.quantiles[q] = double(q);
    EXPECT_EQ(forecast.at(0.5), 4);
    EXPECT_DOUBLE_EQ(forecast.at(0.6), 4.4);
    EXPECT_EQ(forecast.at(0), 0);
    EXPECT_EQ(forecast.at(1), 10);
    EXPECT_NEAR(forecast.interval(0.9).low, 1, 1e-9);
    EXPECT_NEAR(forecast.interval(0.9).high, 7, 1e-9);
    EXPECT_EQ(forecast.interval(0.99).low, 0);  // nothing can lie below: all the rest lies above
    EXPECT_EQ(forecast.interval(0.99).high, forecast.at(0.99));
}

TEST(Predictors, WithoutTrafficForetellNone) {
    for (const auto name : predictor_names()) {
        const auto predictor = made(name, {.counts = true});
        for (int i = 0; i < 200; ++i) predictor->observe(0);
        EXPECT_EQ(predictor->forecast(12).at(0.5), 0) << name;
        EXPECT_LE(predictor->forecast(1).at(0.995), 4) << name;
        predictor->observe(1);
        predictor->observe(0);
        predictor->observe(0);
        EXPECT_LE(predictor->forecast(1).at(0.5), 1) << name;
    }
}

TEST(Mix, ForgetsASpike) {
    std::mt19937_64 random(5);
    const auto mix = made("mix", {.counts = true});
    for (int i = 0; i < 100; ++i) mix->observe(poisson(random, 20));
    mix->observe(2000);
    EXPECT_LE(mix->forecast(12).at(0.995), 1e6);
    for (int i = 0; i < 6; ++i) mix->observe(poisson(random, 20));
    EXPECT_NEAR(mix->forecast(1).at(0.5), 20, 15);
    for (int i = 0; i < 30; ++i) mix->observe(poisson(random, 20));
    EXPECT_NEAR(mix->forecast(12).at(0.5), 20, 6);
}

TEST(Mix, GoesOnThroughMissingWindows) {
    std::mt19937_64 random(6);
    const auto mix = made("mix", {.counts = true});
    for (int i = 0; i < 100; ++i) mix->observe(poisson(random, 50));
    for (int i = 0; i < 500; ++i) mix->observe_missing();
    EXPECT_NEAR(mix->forecast(1).at(0.5), 50, 20);
    mix->observe(50);
    EXPECT_NEAR(mix->forecast(12).at(0.5), 50, 20);
}

/// Share of the values in the intervals said `steps` before.
double covered(Predictor& predictor, const std::vector<double>& values, std::size_t steps) {
    std::vector<Forecast::Interval> said;
    int inside = 0;
    int scored = 0;
    for (std::size_t t = 0; t < values.size(); ++t) {
        if (t >= values.size() / 5) {
            const auto& interval = said[t - steps];
            ++scored;
            if (values[t] >= interval.low && values[t] <= interval.high) ++inside;
        }
        predictor.observe(values[t]);
        said.push_back(predictor.forecast(static_cast<int>(steps)).interval(0.9));
    }
    return static_cast<double>(inside) / scored;
}

TEST(Mix, NineOfTenValuesLieInNineOfTenIntervals) {
    for (const std::size_t steps : {1U, 12U}) {
        std::mt19937_64 random(11);
        std::vector<double> still;
        std::vector<double> bursts;
        double rate = 50;
        for (int i = 0; i < 500; ++i) {
            still.push_back(poisson(random, 30));
            if (random() % 8 == 0) rate = random() % 2 == 0 ? 0.2 : 60;
            bursts.push_back(poisson(random, rate));
        }
        const auto of_still = made("mix", {.counts = true});
        EXPECT_NEAR(covered(*of_still, still, steps), 0.9, 0.05) << steps;
        if (steps > 1) continue;  // bursts as long as the horizon: nobody knows
        const auto of_bursts = made("mix", {.counts = true});
        EXPECT_NEAR(covered(*of_bursts, bursts, steps), 0.9, 0.05);
    }
}

/// Mean |Δ ln| of the medians of the next window, over the second half.
double lost(std::string_view name, const std::vector<double>& values) {
    const auto predictor = made(name, {.window_s = 600});
    double sum = 0;
    int scored = 0;
    for (std::size_t t = 0; t < values.size(); ++t) {
        if (t >= values.size() / 2) {
            sum += std::abs(std::log(values[t] + 1) - std::log(predictor->forecast(1).at(0.5) + 1));
            ++scored;
        }
        predictor->observe(values[t]);
    }
    return sum / scored;
}

TEST(Mix, IsNearTheBestWhicheverThatIs) {
    std::mt19937_64 random(13);
    std::vector<double> walk;
    std::vector<double> noise;
    std::vector<double> days;
    std::vector<double> alternating;
    double level = 1000;
    for (int i = 0; i < 432; ++i) {
        level = std::max(100.0, level + poisson(random, 25) * 4 - 100);
        walk.push_back(level);
        noise.push_back(poisson(random, 40));
        const bool at_work = i % 144 > 50 && i % 144 < 100;
        days.push_back(poisson(random, at_work ? 80 : 15));
        alternating.push_back(poisson(random, i % 3 == 0 ? 60 : 20));
    }
    for (const auto& series : {walk, noise, days, alternating}) {
        double best = 1e9;
        for (const auto name : {"constant", "ewma", "arima", "seasonal"}) {
            best = std::min(best, lost(name, series));
        }
        EXPECT_LE(lost("mix", series), 1.06 * best);
    }
    EXPECT_LE(lost("mix", alternating), 0.7 * lost("ewma", alternating));
}

}  // namespace
}  // namespace stator::forecast
