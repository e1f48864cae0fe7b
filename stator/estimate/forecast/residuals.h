#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "stator/estimate/forecast/predictor.h"

namespace stator::forecast {

/// Values at kQuantiles.
using Quantiles = std::array<double, kQuantiles.size()>;

/// What a model got wrong of late at one horizon, and what that says of its next point: quantiles
/// of the next value. What came is carried over as a ratio to the point then, as far as that point
/// was near the one now, and as it was where it wasn't: quiet times and bursts err differently.
/// Younger and nearer ones count more. Bounded: the last kKept.
class Residuals {
  public:
    static constexpr std::size_t kKept = 160;

    /// `counts`: at least Poisson noise is expected until errors tell more.
    explicit Residuals(bool counts) : counts_(counts) {}

    /// The model said `point`, and `actual` came. Both at least 0.
    void learn(double point, double actual);
    /// Where the next value will be if the model says `point`: at probabilities[i], which ascend.
    [[nodiscard]] Quantiles around(double point, const Quantiles& probabilities) const;

  private:
    struct Past {
        double log_point = 0;
        double log_actual = 0;
    };
    /// One of the past as seen from a point now.
    struct Seen {
        float log_ratio = 0;
        float weight = 0;
    };
    struct Sample {
        std::array<Seen, kKept> seen;  ///< ascending log_ratio
        std::size_t size = 0;
        double weights = 0;    ///< their sum
        double effective = 0;  ///< number of equal weights that would be as sure
        [[nodiscard]] double quantile(double probability) const;
    };

    [[nodiscard]] Sample seen_from(double log_point) const;
    /// How far the sample's median is off without being believed.
    [[nodiscard]] double doubted_shift(const Sample& sample) const;
    [[nodiscard]] double offset() const;

    bool counts_;
    std::vector<Past> past_;  ///< a ring
    std::size_t next_ = 0;
    double windows_ = 0;
    double scale_ = 0;  ///< mean of actual values of late
    /// Errors of neighbouring windows are alike, the more the longer the horizon: mean of the
    /// product of their signs.
    double alike_ = 0;
    double last_sign_ = 0;
};

/// Standard normal quantile. Source: Acklam's rational approximation, relative error below 1.2e-9.
[[nodiscard]] double normal_quantile(double probability);

}  // namespace stator::forecast
