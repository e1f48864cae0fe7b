#include "stator/estimate/scale_filter.h"

#include <algorithm>
#include <cmath>

namespace stator::estimate {
namespace {

double squared(double x) { return x * x; }
bool usable(double seconds) { return std::isfinite(seconds) && seconds > 0; }

/// How fast the noise is learned: a mean over some twenty observations.
constexpr double kNoiseRate = 0.05;

}  // namespace

ScaleFilter::ScaleFilter(ScaleFilterOptions options)
    : options_(options),
      variance_(squared(options.initial_std)),
      noise_(squared(options.measurement_std)) {
    refresh();
}

void ScaleFilter::observe(double observed_s, double predicted_s, double weight) {
    if (!usable(observed_s) || !usable(predicted_s) || !usable(weight)) return;
    const double limit = std::log(options_.largest);
    const double measured = std::clamp(std::log(observed_s) - std::log(predicted_s), -limit, limit);
    ++observations_;
    variance_ += squared(options_.process_std);
    const double noise = std::max(noise_ / weight, squared(options_.least_measurement_std));
    const double innovation = measured - log_;
    if (std::abs(innovation) > options_.gate * std::sqrt(variance_ + noise)) {
        ++outliers_;
        off_ = innovation > 0 ? std::max(off_, 0) + 1 : std::min(off_, 0) - 1;
        if (static_cast<std::uint32_t>(std::abs(off_)) < options_.outliers_that_convince) {
            return refresh();
        }
        // The rank has changed: nothing known of its scale holds, the noise stays what it was.
        variance_ = std::max(variance_, squared(innovation));
    } else {
        const double seen = (squared(innovation) - variance_) * weight;
        noise_ = std::clamp(noise_ + kNoiseRate * (seen - noise_),
                            squared(options_.least_measurement_std),
                            squared(options_.most_measurement_std));
    }
    off_ = 0;
    const double gain = variance_ / (variance_ + noise);
    log_ = std::clamp(log_ + gain * innovation, -limit, limit);
    variance_ *= 1.0 - gain;
    refresh();
}

void ScaleFilter::start_at(double scale) {
    if (observations_ > 0 || !usable(scale)) return;
    const double limit = std::log(options_.largest);
    log_ = std::clamp(std::log(scale), -limit, limit);
    refresh();
}

double ScaleFilter::scale_relative_std() const { return std::sqrt(variance_); }

void ScaleFilter::refresh() {
    scale_ = std::exp(log_);
    relative_std_ = std::sqrt(variance_ + noise_);
}

}  // namespace stator::estimate
