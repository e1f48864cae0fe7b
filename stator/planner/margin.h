#pragma once

#include <algorithm>
#include <cmath>

namespace stator::planner {

/// The factor that demand is multiplied with, as kept and missed limits taught: while more than 80
/// % of the misses that the SLO allows occur it grows, while fewer do it shrinks. Windows count by
/// how many requests they had, in units of a usual one.
class Margin {
  public:
    Margin(double gain, double least, double most) : gain_(gain), least_(least), most_(most) {}

    void observe(double count, double within, double share) {
        if (!(count > 0) || !std::isfinite(count) || !std::isfinite(within)) return;
        usual_ = usual_ > 0 ? 0.98 * usual_ + 0.02 * count : count;
        const double missed = std::clamp(count - within, 0.0, count);
        const double over = missed - kOfAllowed * (1 - share) * count;
        log_ += gain_ * std::clamp(over / usual_, -1.0, 1.0);
        log_ = std::clamp(log_, std::log(least_), std::log(most_));
    }
    [[nodiscard]] double value() const { return std::exp(log_); }

  private:
    static constexpr double kOfAllowed = 0.8;
    double gain_;
    double least_;
    double most_;
    double log_ = 0;
    double usual_ = 0;
};

}  // namespace stator::planner
