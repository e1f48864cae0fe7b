#include "stator/estimate/forecast/trend_filter.h"

namespace stator::forecast {

TrendFilter::TrendFilter(TrendNoise noise, double level, double level_variance,
                         double trend_variance)
    : noise_(noise),
      level_(level),
      level_variance_(level_variance),
      trend_variance_(trend_variance) {}

void TrendFilter::predict() {
    level_ += trend_;
    level_variance_ += 2 * covariance_ + trend_variance_ + noise_.level;
    covariance_ += trend_variance_;
    trend_variance_ += noise_.trend;
}

void TrendFilter::update(double value) {
    const double innovation = value - level_;
    const double variance = level_variance_ + noise_.observation;
    if (variance <= 0) return;
    const double level_gain = level_variance_ / variance;
    const double trend_gain = covariance_ / variance;
    level_ += level_gain * innovation;
    trend_ += trend_gain * innovation;
    trend_variance_ -= trend_gain * covariance_;
    covariance_ *= 1 - level_gain;
    level_variance_ *= 1 - level_gain;
}

}  // namespace stator::forecast
