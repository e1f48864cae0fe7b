#include "stator/workload/arrival_times.h"

#include <algorithm>
#include <cmath>

namespace stator::workload {

ArrivalTimes::ArrivalTimes(const WorkloadOptions& o, std::uint64_t seed)
    : kind_(o.effective_arrivals()),
      rate_(o.rate),
      rate_end_(o.rate_end > 0 && o.duration_s > 0 ? o.rate_end : o.rate),
      duration_(o.duration_s),
      // A gamma distribution of shape k has the coefficient of variation 1 / sqrt(k).
      shape_(1.0 / (o.cv * o.cv)),
      random_(seed) {}

double ArrivalTimes::rate_at(double seconds) const {
    if (rate_ == rate_end_) return rate_;
    const double share = std::clamp(seconds / duration_, 0.0, 1.0);
    return rate_ + (rate_end_ - rate_) * share;
}

std::chrono::nanoseconds ArrivalTimes::next() {
    double gap = 0;  // in mean gaps
    switch (kind_) {
        case Arrivals::kConstant:
            gap = 1;
            break;
        case Arrivals::kPoisson:
            gap = std::exponential_distribution<double>(1.0)(random_);
            break;
        case Arrivals::kGamma:
            gap = std::gamma_distribution<double>(shape_, 1.0 / shape_)(random_);
            break;
        case Arrivals::kTrace:
        case Arrivals::kClosed:
            return std::chrono::nanoseconds(0);
    }
    at_ += gap / rate_at(at_);
    return std::chrono::nanoseconds(std::llround(at_ * 1e9));
}

}  // namespace stator::workload
