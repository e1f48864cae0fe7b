#include "stator/estimate/forecast/seasonal.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {
namespace {

/// Of the newest window in the level.
constexpr double kRate = 0.15;
/// Of the newest season in the profile.
constexpr double kSeasonRate = 0.4;
/// How far from the profile the level may be: a profile of almost nothing tells nothing.
constexpr double kMostFactor = 20;

}  // namespace

Seasonal::Seasonal(double window_s, double season_s) {
    const double windows = window_s > 0 && season_s > 0 ? std::round(season_s / window_s) : 1;
    season_ = static_cast<std::size_t>(std::clamp(windows, 1.0, 1e7));
    bins_ = std::min(season_, kBins);
    profile_.assign(bins_, kUnknown);
}

double Seasonal::profile(std::size_t window) const {
    // Linear between the middles of bins.
    const double at = static_cast<double>(window % season_) * static_cast<double>(bins_) /
                      static_cast<double>(season_);
    const auto here = std::min(static_cast<std::size_t>(at), bins_ - 1);
    const double off = at - static_cast<double>(here) - 0.5;
    const auto other = off < 0 ? (here + bins_ - 1) % bins_ : (here + 1) % bins_;
    if (profile_[here] == kUnknown) return kUnknown;
    if (profile_[other] == kUnknown) return profile_[here];
    return profile_[here] + std::abs(off) * (profile_[other] - profile_[here]);
}

void Seasonal::pass() {
    const auto bin = window_ * bins_ / season_;
    window_ = (window_ + 1) % season_;
    if (window_ * bins_ / season_ == bin) return;
    if (bin_seen_ > 0) {
        double& told = profile_[bin];
        const double mean = bin_sum_ / bin_seen_;
        told = told == kUnknown ? mean : told + kSeasonRate * (mean - told);
    }
    bin_sum_ = 0;
    bin_seen_ = 0;
}

void Seasonal::observe(double value) {
    const double expected = profile(window_);
    if (profile_level_ == kUnknown || expected == kUnknown) {
        profile_level_ = expected;
    } else {
        profile_level_ += kRate * (expected - profile_level_);
    }
    seen_ += 1;
    level_ += std::max(kRate, 1 / seen_) * (value - level_);
    bin_sum_ += value;
    bin_seen_ += 1;
    pass();
}

void Seasonal::skip() { pass(); }

double Seasonal::point(int steps) const {
    const double then = profile(window_ + static_cast<std::size_t>(steps) - 1);
    if (then == kUnknown || profile_level_ <= 0) return level_;
    return then * std::min(level_ / profile_level_, kMostFactor);
}

}  // namespace stator::forecast
