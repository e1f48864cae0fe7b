#pragma once

#include <string_view>

namespace stator::forecast {

/// One way to foretell a series: a point for each horizon, without a word on how sure it is. The
/// noise around it is learned from what it got wrong (calibrator.h). Not thread-safe; bounded.
class Model {
  public:
    virtual ~Model() = default;
    /// The next window's value: finite, at least 0, at most kLargest.
    virtual void observe(double value) = 0;
    /// The next window passed unseen.
    virtual void skip() = 0;
    /// Of the window `steps` ≥ 1 ahead; called after at least one observation. The caller bounds
    /// it: it may be negative.
    [[nodiscard]] virtual double point(int steps) const = 0;
};

/// Larger values are taken for this one, so that no square overflows.
inline constexpr double kLargest = 1e15;

}  // namespace stator::forecast
