#pragma once

#include <cstdint>

namespace stator::estimate {

struct ScaleFilterOptions {
    /// Of ln(scale), before the first observation. 0.25: mostly between 0.6 and 1.6 times the
    /// prior.
    double initial_std = 0.25;
    /// How much ln(scale) may wander from one observation to the next.
    double process_std = 0.02;
    /// Of one observation's logarithm, to begin with; learned from then on, within these bounds.
    double measurement_std = 0.1;
    double least_measurement_std = 0.02;
    double most_measurement_std = 1.0;
    /// An observation so many standard deviations off is an outlier …
    double gate = 3.5;
    /// … until so many in a row are, on the same side: then the rank has changed.
    std::uint32_t outliers_that_convince = 4;
    /// Bounds of the scale: 1/largest … largest.
    double largest = 1000.0;
};

/// How much slower (> 1) or faster a rank is than its pool's prior: a scalar Kalman filter of
/// ln(scale), a random walk that is observed with noise. The noise is learned from the innovations;
/// single outliers are passed over, a lasting change is taken over. No clock: time passes by
/// observations. The scale is always positive and finite, whatever is fed in.
class ScaleFilter {
  public:
    explicit ScaleFilter(ScaleFilterOptions options = {});

    /// Something that the prior says takes `predicted_s` took `observed_s`. Values that are not
    /// positive and finite are ignored. `weight`: how much better than a usual one this observation
    /// is (its variance is divided by it).
    void observe(double observed_s, double predicted_s, double weight = 1.0);

    [[nodiscard]] double scale() const { return scale_; }
    /// Relative standard deviation of what the next observation will be: uncertain scale and noise.
    [[nodiscard]] double relative_std() const { return relative_std_; }
    /// The same of the scale alone.
    [[nodiscard]] double scale_relative_std() const;
    [[nodiscard]] std::uint64_t observations() const { return observations_; }
    [[nodiscard]] std::uint64_t outliers() const { return outliers_; }

  private:
    void refresh();

    ScaleFilterOptions options_;
    double log_ = 0.0;       ///< ln(scale)
    double variance_ = 0.0;  ///< of log_
    double noise_ = 0.0;     ///< variance of an observation
    std::int32_t off_ = 0;   ///< outliers in a row; below zero: too small ones
    std::uint64_t observations_ = 0;
    std::uint64_t outliers_ = 0;
    double scale_ = 1.0;
    double relative_std_ = 0.0;
};

}  // namespace stator::estimate
