#include "stator/estimate/forecast/arima.h"

#include <algorithm>
#include <cmath>

#include "stator/estimate/forecast/horizons.h"

namespace stator::forecast {

void Arima::observe(double value) { append(std::sqrt(value)); }

void Arima::skip() {
    if (!ahead_.empty()) append(ahead_.front());
}

void Arima::append(double root) {
    if (roots_.size() == kHistory) roots_.erase(roots_.begin());
    roots_.push_back(root);
    // Often while little is known, later every kRefit windows.
    if (++since_fit_ >= std::min(kRefit, 1 + roots_.size() / 8)) {
        since_fit_ = 0;
        fitted_ = choose_autoregression(roots_);
    }
    ahead_.clear();
    fitted_.continue_series(roots_, static_cast<std::size_t>(kHorizons.back()), ahead_);
    // Whatever the fit: not beyond what was seen by more than as much again.
    const double most = 2 * *std::max_element(roots_.begin(), roots_.end());
    for (double& ahead : ahead_) ahead = std::isfinite(ahead) ? std::clamp(ahead, 0.0, most) : root;
}

double Arima::point(int steps) const {
    const auto last = static_cast<int>(ahead_.size());
    const double root = ahead_[static_cast<std::size_t>(std::clamp(steps, 1, last) - 1)];
    return root * root;
}

}  // namespace stator::forecast
