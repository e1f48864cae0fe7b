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

}  // namespace
}  // namespace stator::forecast
