#pragma once

#include <cmath>

#include "stator/estimate/forecast/residuals.h"

namespace stator::forecast {

/// Which probabilities to ask for so that values fall below each quantile as often as it says:
/// after each value every quantile's level moves a little, up if the value was above it. The median
/// stays, it is corrected elsewhere. Source: Gibbs and Candès, "Adaptive conformal inference under
/// distribution shift" (2021), one level a quantile.
class Conformal {
  public:
    /// What is said is about `steps` windows on: news of it is as old, so its steps are smaller.
    explicit Conformal(int steps) : rate_(kRate / std::sqrt(static_cast<double>(steps))) {}

    /// `said`: the quantiles that were given out. A value equal to one counts as half below.
    void learn(const Quantiles& said, double actual);
    [[nodiscard]] const Quantiles& levels() const { return levels_; }

  private:
    static constexpr double kRate = 0.05;

    double rate_;
    Quantiles levels_ = kQuantiles;
};

}  // namespace stator::forecast
