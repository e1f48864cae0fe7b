#include "stator/estimate/forecast/calibrated.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {

Calibrated::Calibrated(std::string_view name, std::unique_ptr<Model> model,
                       PredictorOptions options)
    : name_(name), model_(std::move(model)), options_(options) {
    for (const int steps : kHorizons) horizons_.emplace_back(steps, options.counts);
}

void Calibrated::observe(double value) {
    if (!std::isfinite(value) || value < 0) return observe_missing();
    value = std::min(value, kLargest);
    for (auto& horizon : horizons_) {
        const Forecast* said = horizon.said.due();
        if (said == nullptr) continue;
        horizon.residuals.learn(said->mean, value);
        horizon.conformal.learn(said->quantiles, value);
    }
    model_->observe(value);
    started_ = true;
    look_ahead();
}

void Calibrated::observe_missing() {
    if (!started_) return;
    model_->skip();
    look_ahead();
}

void Calibrated::look_ahead() {
    for (std::size_t h = 0; h < horizons_.size(); ++h) {
        auto& horizon = horizons_[h];
        const double point = model_->point(kHorizons[h]);
        now_[h].mean = std::isfinite(point) ? std::clamp(point, 0.0, kLargest) : 0.0;
        now_[h].quantiles = horizon.residuals.around(now_[h].mean, horizon.conformal.levels());
        make_sound(now_[h].quantiles, options_.counts);
        horizon.said.push(now_[h]);
    }
}

Forecast Calibrated::forecast(int steps) const {
    return between_horizons(steps, now_, options_.counts);
}

Forecast between_horizons(int steps, const std::array<Forecast, kHorizons.size()>& at,
                          bool counts) {
    const auto above = std::lower_bound(kHorizons.begin(), kHorizons.end(), steps);
    if (above == kHorizons.end()) return at.back();
    const auto i = static_cast<std::size_t>(above - kHorizons.begin());
    if (*above == steps || i == 0) return at[i];
    const double share = static_cast<double>(steps - kHorizons[i - 1]) /
                         static_cast<double>(kHorizons[i] - kHorizons[i - 1]);
    const auto mixed = [share](double a, double b) { return a + share * (b - a); };
    Forecast out{.mean = mixed(at[i - 1].mean, at[i].mean)};
    for (std::size_t q = 0; q < out.quantiles.size(); ++q) {
        out.quantiles[q] = mixed(at[i - 1].quantiles[q], at[i].quantiles[q]);
        if (counts) out.quantiles[q] = std::round(out.quantiles[q]);
    }
    return out;
}

void make_sound(Quantiles& quantiles, bool counts) {
    double least = 0;
    for (double& value : quantiles) {
        least = std::isfinite(value) ? std::clamp(value, least, kLargest) : least;
        value = least;
    }
    if (!counts) return;
    const double median = quantiles[4];
    for (std::size_t q = 0; q < quantiles.size(); ++q) {
        const double z = normal_quantile(kQuantiles[q]);
        const double root = std::max(0.0, std::sqrt(median) + 0.5 * z);
        const double poisson = root * root;
        if (z > 0.1) quantiles[q] = std::max(quantiles[q], poisson);
        if (z < -0.1) quantiles[q] = std::min(quantiles[q], poisson);
        quantiles[q] = std::round(quantiles[q]);
    }
}

}  // namespace stator::forecast
