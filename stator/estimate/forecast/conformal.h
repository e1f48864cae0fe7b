#pragma once

#include "stator/estimate/forecast/residuals.h"

namespace stator::forecast {

/// Which probabilities to ask for so that values fall below each quantile as often as it says:
/// after each value every quantile's level moves a little, up if the value was above it. Source:
/// Gibbs and Candès, "Adaptive conformal inference under distribution shift" (2021), one level a
/// quantile.
class Conformal {
  public:
    /// `said`: the quantiles that were given out. A value equal to one counts as half below.
    void learn(const Quantiles& said, double actual);
    [[nodiscard]] const Quantiles& levels() const { return levels_; }

  private:
    Quantiles levels_ = kQuantiles;
};

}  // namespace stator::forecast
