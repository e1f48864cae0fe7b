#include "stator/router/handoff_times.h"

#include <algorithm>
#include <cmath>

namespace stator::router {
namespace {

/// Of one observation, relative: a wait for a step is in it, and others' handoffs.
constexpr double kMeasurementStd = 0.3;
/// One that took so many times what was predicted counts as no longer than that.
constexpr double kMostOff = 4;
constexpr double kLeastFactor = 1e-3;
constexpr double kMostFactor = 1e5;

double bounded(double factor) { return std::clamp(factor, kLeastFactor, kMostFactor); }

}  // namespace

TransferSpeed speed_of(std::string_view method) {
    if (method == "shm") return {2e-4, 20};
    if (method == "nixl") return {5e-4, 10};
    if (method == "tcp") return {5e-4, 2};
    return {2e-3, 1};
}

HandoffTimes::Factors HandoffTimes::Learned::factors(double now_s) const {
    const double kept = std::exp2(-std::max(0.0, now_s - at_s) / kHalfLife_s);
    const double a = prior_weight + kept * uu;
    const double b = kept * uv;
    const double d = prior_weight + kept * vv;
    const double r = prior_weight + kept * uz;
    const double s = prior_weight + kept * vz;
    const double det = a * d - b * b;  // above 0: the prior's weight is
    Factors out{(d * r - b * s) / det, (a * s - b * r) / det};
    // Neither takes less than nothing; the other one then explains it all.
    if (out.fixed < kLeastFactor) {
        out.size = (s - b * kLeastFactor) / d;
    } else if (out.size < kLeastFactor) {
        out.fixed = (r - b * kLeastFactor) / a;
    }
    return {bounded(out.fixed), bounded(out.size)};
}

double HandoffTimes::seconds(const HandoffWay& way, HandoffPrior prior, double now_s) const {
    const auto known = ways_.find(key(way));
    if (known == ways_.end()) return prior.total_s();
    return known->second.factors(now_s).of(prior);
}

void HandoffTimes::observe(const HandoffWay& way, HandoffPrior prior, double observed_s,
                           double prior_std, double now_s) {
    const double thought = prior.total_s();
    if (!(thought > 0) || !(observed_s > 0) || !std::isfinite(observed_s)) return;
    auto at = ways_.find(key(way));
    if (at == ways_.end()) {
        if (ways_.size() >= kMostWays) return;
        const double precision = kMeasurementStd / std::max(prior_std, 0.01);
        at = ways_.emplace(key(way), Learned{.prior_weight = precision * precision, .at_s = now_s})
                 .first;
    }
    Learned& l = at->second;
    const double predicted = l.factors(now_s).of(prior);
    const double z = std::min(observed_s, kMostOff * predicted) / thought;
    const double u = prior.fixed_s / thought;
    const double v = prior.size_s / thought;
    const double kept = std::exp2(-std::max(0.0, now_s - l.at_s) / kHalfLife_s);
    l.uu = kept * l.uu + u * u;
    l.uv = kept * l.uv + u * v;
    l.vv = kept * l.vv + v * v;
    l.uz = kept * l.uz + u * z;
    l.vz = kept * l.vz + v * z;
    l.at_s = std::max(l.at_s, now_s);
}

std::uint64_t HandoffTimes::key(const HandoffWay& way) {
    constexpr unsigned kZoneBits = 28;
    constexpr std::uint64_t kZones = (1ULL << kZoneBits) - 1;
    // Within a host all is one place.
    const std::uint64_t place =
        way.same_host ? (kZones << kZoneBits) | kZones
                      : ((way.from_zone & kZones) << kZoneBits) | (way.to_zone & kZones);
    return (std::uint64_t{way.method & 0xFFU} << (2 * kZoneBits)) | place;
}

}  // namespace stator::router
