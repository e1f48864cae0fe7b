#pragma once

#include <vector>

#include "stator/estimate/forecast/model.h"
#include "stator/estimate/forecast/trend_filter.h"

namespace stator::forecast {

/// Level and trend by Kalman filters whose noise is learned. The filters differ in how much level
/// and trend wander, in units of the observation's noise; the noise itself is the mean square of
/// the innovations, each by its variance in those units. Their forecasts are averaged by
/// likelihood, which is forgotten over some hundred windows, so that a series may change its
/// nature. Source of the concentrated likelihood: Durbin and Koopman, 2.10.2.
class Kalman final : public Model {
  public:
    Kalman();

    void observe(double value) override;
    void skip() override;
    [[nodiscard]] double point(int steps) const override;

    /// Weights of the filters; their sum is 1. For tests and explanations.
    [[nodiscard]] std::vector<double> weights() const;

  private:
    struct Member {
        TrendFilter filter;
        double scale = 0;           ///< discounted mean of innovation² / variance: the noise
        double log_likelihood = 0;  ///< discounted
    };

    std::vector<Member> members_;
    double seen_ = 0;  ///< discounted number of innovations
    bool started_ = false;
};

}  // namespace stator::forecast
