#include "stator/estimate/forecast/mix.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {
namespace {

/// Losses are remembered for some fifty windows.
constexpr double kMemory = 0.98;
/// Learning rate, over the root of the number of windows seen, of losses as multiples of the least:
/// one that loses a tenth more has, after fifty windows, a seventeenth of the best one's weight.
constexpr double kRate = 4;
/// Zero stands for so much among counts: fifty times less than one.
constexpr double kZeroCount = 0.02;

}  // namespace

Mix::Mix(std::vector<std::unique_ptr<Calibrated>> experts, PredictorOptions options)
    : experts_(std::move(experts)), options_(options) {
    for (const int steps : kHorizons) horizons_.emplace_back(steps, candidates());
}

void Mix::observe(double value) {
    if (!std::isfinite(value) || value < 0) return observe_missing();
    value = std::min(value, kLargest);
    for (std::size_t h = 0; h < horizons_.size(); ++h) learn(h, value);
    for (auto& expert : experts_) expert->observe(value);
    started_ = true;
    look_ahead();
}

void Mix::observe_missing() {
    if (!started_) return;
    for (auto& expert : experts_) expert->observe_missing();
    look_ahead();
}

double Mix::logarithm(double value) const {
    return std::log(value + (options_.counts ? kZeroCount : 1e-3));
}

void Mix::learn(std::size_t h, double value) {
    auto& horizon = horizons_[h];
    const Forecast* mine = horizon.said.due();
    if (mine == nullptr) return;
    horizon.conformal.learn(mine->quantiles, value);
    horizon.seen = kMemory * horizon.seen + 1;
    const double actual = logarithm(value);
    for (std::size_t k = 0; k < candidates(); ++k) {
        const Forecast& said = *experts_[k % experts_.size()]->due(h);
        for (std::size_t q = 0; q < kQuantiles.size(); ++q) {
            if (k >= experts_.size() && q != kMedian) continue;
            const double error = actual - logarithm(said_by(k, said, q));
            const double loss = std::max(kQuantiles[q] * error, (kQuantiles[q] - 1) * error);
            double& sum = horizon.losses[q * candidates() + k];
            sum = kMemory * sum + loss;
        }
    }
}

std::span<double> Mix::weigh(const Horizon& horizon, std::size_t q,
                             std::vector<double>& weights) const {
    const std::size_t used = q == kMedian ? candidates() : experts_.size();
    const auto losses = std::span(horizon.losses).subspan(q * candidates(), used);
    weights.resize(candidates());
    const double least = *std::ranges::min_element(losses);
    const double scale = least / std::max(horizon.seen, 1.0) + 1e-9;
    double sum = 0;
    for (std::size_t k = 0; k < used; ++k) {
        weights[k] = std::exp(-kRate * (losses[k] - least) / scale / std::sqrt(horizon.seen + 1));
        sum += weights[k];
    }
    for (std::size_t k = 0; k < used; ++k) weights[k] /= sum;
    return std::span(weights).first(used);
}

std::vector<double> Mix::median_weights(std::size_t horizon) const {
    std::vector<double> weights;
    weigh(horizons_[horizon], kMedian, weights);
    return weights;
}

Forecast Mix::mixed(std::size_t h) const {
    const auto& horizon = horizons_[h];
    Forecast out;
    std::vector<double> weights;
    for (std::size_t q = 0; q < kQuantiles.size(); ++q) {
        double value = 0;
        std::size_t k = 0;
        for (const double weight : weigh(horizon, q, weights)) {
            const Forecast& said = experts_[k % experts_.size()]->now(h);
            value += weight * logarithm(said_by(k, said, q));
            if (q == kMedian) out.mean += weight * said.mean;
            ++k;
        }
        out.quantiles[q] = std::exp(value) - std::exp(logarithm(0));
    }
    make_sound(out.quantiles, false);
    const Forecast uncorrected = out;
    for (std::size_t q = 0; q < kQuantiles.size(); ++q) {
        if (q != kMedian) out.quantiles[q] = uncorrected.at(horizon.conformal.levels()[q]);
    }
    make_sound(out.quantiles, options_.counts);
    return out;
}

void Mix::look_ahead() {
    for (std::size_t h = 0; h < horizons_.size(); ++h) {
        now_[h] = mixed(h);
        horizons_[h].said.push(now_[h]);
    }
}

Forecast Mix::forecast(int steps) const { return between_horizons(steps, now_, options_.counts); }

}  // namespace stator::forecast
