#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "stator/estimate/forecast/predictor.h"

namespace stator::forecast {

/// Values at kQuantiles.
using Quantiles = std::array<double, kQuantiles.size()>;

/// What a model got wrong of late at one horizon, and what that says of its next point: quantiles
/// of the logarithm of actual over foretold. Errors count the more the younger they are and the
/// nearer the point then was to the point now, since quiet times and bursts err differently.
/// Bounded: the last kKept errors.
class Residuals {
  public:
    static constexpr std::size_t kKept = 256;

    /// `counts`: at least Poisson noise is expected until errors tell more.
    explicit Residuals(bool counts) : counts_(counts) {}

    /// The model said `point`, and `actual` came. Both at least 0.
    void learn(double point, double actual);
    /// Where the next value will be if the model says `point`: at probabilities[i], which ascend.
    [[nodiscard]] Quantiles around(double point, const Quantiles& probabilities) const;

  private:
    struct Error {
        float log_ratio;
        float log_point;
        std::uint32_t time;
    };
    [[nodiscard]] double offset() const;
    [[nodiscard]] double median_shift(const std::array<double, kKept>& weights, double sum,
                                      double effective) const;

    bool counts_;
    std::vector<Error> by_size_;  ///< ascending log_ratio
    std::uint32_t time_ = 0;
    double alike_ = 0;
    double last_sign_ = 0;
    double scale_ = 0;  ///< mean of actual values of late
};

/// Standard normal quantile. Source: Acklam's rational approximation, relative error below 1.2e-9.
[[nodiscard]] double normal_quantile(double probability);

}  // namespace stator::forecast
