#pragma once

#include <chrono>
#include <cstdint>
#include <random>

#include "stator/workload/options.h"

namespace stator::workload {

/// The times at which requests (or sessions) start, one after another: constant, Poisson or gamma
/// gaps whose mean follows the rate at that moment. Closed arrivals are all at 0: whoever drives
/// them keeps the number at a time.
class ArrivalTimes {
  public:
    ArrivalTimes(const WorkloadOptions& options, std::uint64_t seed);
    [[nodiscard]] std::chrono::nanoseconds next();

  private:
    [[nodiscard]] double rate_at(double seconds) const;

    Arrivals kind_;
    double rate_;
    double rate_end_;
    double duration_;
    double shape_;
    double at_ = 0.0;
    std::mt19937_64 random_;
};

}  // namespace stator::workload
