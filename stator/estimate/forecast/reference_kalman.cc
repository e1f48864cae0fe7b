#include "stator/estimate/forecast/reference_kalman.h"

namespace stator::forecast {

void ReferenceKalman::observe(double value) {
    if (points_ == 0) {
        filter_ = TrendFilter(kNoise, value, kStartVariance, kStartVariance);
    } else {
        filter_.predict();
        filter_.update(value);
    }
    if (points_ < kLeastPoints) ++points_;
    last_ = value;
}

double ReferenceKalman::point(int steps) const {
    return points_ < kLeastPoints ? last_ : filter_.ahead(steps);
}

}  // namespace stator::forecast
