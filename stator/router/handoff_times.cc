#include "stator/router/handoff_times.h"

#include <algorithm>
#include <cmath>

namespace stator::router {

double HandoffTimes::seconds(const HandoffWay& way, double usual_s, double now_s) const {
    const auto known = ways_.find(key(way));
    if (known == ways_.end()) return prior(way, usual_s);
    const double age = std::max(0.0, now_s - known->second.at_s);
    return prior(way, usual_s) *
           std::pow(known->second.scale.scale(), std::exp2(-age / kHalfLife_s));
}

void HandoffTimes::observe(const HandoffWay& way, double usual_s, double observed_s,
                           double prior_std, double now_s) {
    auto at = ways_.find(key(way));
    if (at == ways_.end()) {
        if (ways_.size() >= kMostWays) return;
        estimate::ScaleFilterOptions options;
        options.initial_std = prior_std;
        options.measurement_std = 0.3;  // a wait for a step is in it, and others' handoffs
        at = ways_.emplace(key(way), Learned{estimate::ScaleFilter(options)}).first;
    }
    at->second.scale.observe(observed_s, prior(way, usual_s));
    at->second.at_s = now_s;
}

std::uint64_t HandoffTimes::key(const HandoffWay& way) {
    constexpr std::uint64_t kOneHost = ~std::uint64_t{0};
    return way.same_host ? kOneHost : (std::uint64_t{way.from_zone} << 32U) | way.to_zone;
}

double HandoffTimes::prior(const HandoffWay& way, double usual_s) {
    if (way.same_host) return usual_s / 2;
    const bool crosses = way.from_zone != 0 && way.to_zone != 0 && way.from_zone != way.to_zone;
    return crosses ? usual_s * 2 : usual_s;
}

}  // namespace stator::router
