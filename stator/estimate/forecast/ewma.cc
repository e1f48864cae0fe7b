#include "stator/estimate/forecast/ewma.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {
namespace {

/// Errors count for some fifty windows.
constexpr double kMemory = 0.98;

}  // namespace

void Ewma::observe(double value) {
    seen_ += 1;
    if (!started_) {
        levels_.fill(value);
        started_ = true;
        return;
    }
    for (std::size_t i = 0; i < kRates.size(); ++i) {
        const double error = value - levels_[i];
        errors_[i] = kMemory * errors_[i] + std::abs(error);
        levels_[i] += std::max(kRates[i], 1 / seen_) * error;
    }
    const auto least = std::min_element(errors_.begin(), errors_.end());
    // The one that speaks stays until another is clearly better: no flutter between equals.
    if (*least < 0.99 * errors_[best_]) {
        best_ = static_cast<std::size_t>(least - errors_.begin());
    }
}

double Ewma::point(int) const { return levels_[best_]; }

}  // namespace stator::forecast
