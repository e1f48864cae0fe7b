#pragma once

#include "stator/estimate/forecast/model.h"
#include "stator/estimate/forecast/trend_filter.h"

namespace stator::forecast {

/// The Kalman filter of NVIDIA Dynamo's planner with its published defaults, for comparison: level
/// and trend, variances 1 and 0.1, observation 10, P₀ = 1000·I; the last value until five are
/// there.
class ReferenceKalman final : public Model {
  public:
    static constexpr TrendNoise kNoise{.level = 1.0, .trend = 0.1, .observation = 10.0};
    static constexpr double kStartVariance = 1000;
    static constexpr int kLeastPoints = 5;

    void observe(double value) override;
    void skip() override { filter_.predict(); }
    [[nodiscard]] double point(int steps) const override;

  private:
    TrendFilter filter_{kNoise, 0, kStartVariance, kStartVariance};
    double last_ = 0;
    int points_ = 0;
};

}  // namespace stator::forecast
