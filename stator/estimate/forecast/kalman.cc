#include "stator/estimate/forecast/kalman.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace stator::forecast {
namespace {

/// Variances of what level and trend wander, over the observation's.
constexpr std::array<double, 5> kLevelRatios{0.0025, 0.02, 0.1, 0.5, 2.0};
constexpr std::array<double, 3> kTrendRatios{0.0, 1e-4, 1e-2};
/// Likelihood and noise are remembered for some hundred windows.
constexpr double kMemory = 0.99;
/// To begin with nothing is known of the level but the first value, and little of the trend.
constexpr double kLevelVariance = 1.0;
constexpr double kTrendVariance = 0.01;
/// Logarithm of what a filter with a trend is likely against one without, before anything is seen.
constexpr double kTrendPrior = -1;
/// How much of a trend is left a window later, in forecasts: what rises does not rise for ever.
constexpr double kDamping = 0.9;

double damped_steps(int steps) {
    return kDamping * (1 - std::pow(kDamping, steps)) / (1 - kDamping);
}

}  // namespace

Kalman::Kalman() {
    for (const double trend : kTrendRatios) {
        for (const double level : kLevelRatios) {
            members_.push_back({TrendFilter({level, trend, 1.0}, 0, kLevelVariance,
                                            trend > 0 ? kTrendVariance : 0.0),
                                0, trend > 0 ? kTrendPrior : 0.0});
        }
    }
}

void Kalman::observe(double value) {
    if (!started_) {
        started_ = true;
        std::size_t i = 0;
        for (const double trend : kTrendRatios) {
            for (const double level : kLevelRatios) {
                members_[i++].filter = TrendFilter({level, trend, 1.0}, value, kLevelVariance,
                                                   trend > 0 ? kTrendVariance : 0.0);
            }
        }
        return;
    }
    seen_ = kMemory * seen_ + 1;
    for (auto& member : members_) {
        member.filter.predict();
        const auto expected = member.filter.prediction();
        const double error = value - expected.mean;
        const double square = error * error / expected.variance;
        member.scale += (square - member.scale) / seen_;
        const double noise = std::max(member.scale, 1e-9);
        member.log_likelihood =
            kMemory * member.log_likelihood - 0.5 * (std::log(expected.variance) + std::log(noise));
        member.filter.update(value);
    }
}

void Kalman::skip() {
    for (auto& member : members_) member.filter.predict();
}

std::vector<double> Kalman::weights() const {
    std::vector<double> out(members_.size());
    double most = -1e300;
    for (const auto& member : members_) most = std::max(most, member.log_likelihood);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = std::exp(members_[i].log_likelihood - most);
        sum += out[i];
    }
    for (double& weight : out) weight /= sum;
    return out;
}

double Kalman::point(int steps) const {
    const auto weight = weights();
    const double along = damped_steps(steps);
    double out = 0;
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const auto& filter = members_[i].filter;
        out += weight[i] * (filter.level() + along * filter.trend());
    }
    return out;
}

}  // namespace stator::forecast
