#pragma once

#include <vector>

#include "stator/estimate/forecast/autoregression.h"
#include "stator/estimate/forecast/model.h"

namespace stator::forecast {

/// ARIMA(p, d, 0) of the square root, in which counts of any size are about equally noisy; p and d
/// by Akaike's criterion, fitted anew every kRefit windows to the last kHistory. A window unseen is
/// taken to be what was foretold.
class Arima final : public Model {
  public:
    static constexpr std::size_t kHistory = 360;
    static constexpr std::size_t kRefit = 15;

    void observe(double value) override;
    void skip() override;
    [[nodiscard]] double point(int steps) const override;
    [[nodiscard]] const Autoregression& fitted() const { return fitted_; }

  private:
    void append(double root);

    std::vector<double> roots_;  ///< the oldest first
    std::vector<double> ahead_;  ///< the next windows' square roots
    Autoregression fitted_;
    std::size_t since_fit_ = 0;
};

}  // namespace stator::forecast
