#pragma once

#include <array>

#include "stator/estimate/forecast/model.h"

namespace stator::forecast {

/// Exponentially weighted means at several rates. Which of them speaks is decided by their errors
/// of late: the one with the least discounted mean of |error|, one step ahead.
class Ewma final : public Model {
  public:
    /// Weight of the newest value. 0.3 remembers some five windows, 0.05 some forty.
    static constexpr std::array<double, 6> kRates{0.05, 0.1, 0.2, 0.3, 0.5, 0.8};

    void observe(double value) override;
    void skip() override {}
    [[nodiscard]] double point(int steps) const override;
    /// The rate that speaks now.
    [[nodiscard]] double rate() const { return kRates[best_]; }

  private:
    std::array<double, kRates.size()> levels_{};
    std::array<double, kRates.size()> errors_{};
    std::size_t best_ = 3;
    double seen_ = 0;
    bool started_ = false;
};

}  // namespace stator::forecast
