#include "stator/estimate/forecast/residuals.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {
namespace {

/// An error's weight halves in this many windows.
constexpr double kHalfLife = 100;
/// Width of the neighbourhood of points, in logarithms.
constexpr double kNear = 0.8;
/// What errors at quite other points still count.
constexpr double kFar = 0.02;
/// So many errors weigh as much as what is assumed before any is known.
constexpr double kPriorErrors = 4;
/// Spread assumed then of what is no count: of the logarithm.
constexpr double kPriorStd = 0.3;
/// How many times its own variance the square of a median error must be to be half believed.
constexpr double kMedianDoubt = 4;

}  // namespace

double normal_quantile(double p) {
    constexpr std::array a{-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                           1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
    constexpr std::array b{-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                           6.680131188771972e+01, -1.328068155288572e+01};
    constexpr std::array c{-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                           -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
    constexpr std::array d{7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                           3.754408661907416e+00};
    const auto tail = [&](double q) {
        return (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
               ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    };
    p = std::clamp(p, 1e-12, 1 - 1e-12);
    if (p < 0.02425) return tail(std::sqrt(-2 * std::log(p)));
    if (p > 1 - 0.02425) return -tail(std::sqrt(-2 * std::log(1 - p)));
    const double q = p - 0.5;
    const double r = q * q;
    return (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
           (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
}

double Residuals::offset() const { return counts_ ? 0.5 : 0.01 * scale_ + 1e-9; }

void Residuals::learn(double point, double actual) {
    windows_ += 1;
    scale_ += (actual - scale_) * std::max(0.05, 1 / windows_);
    const double sign = actual > point ? 1.0 : actual < point ? -1.0 : 0.0;
    alike_ += (sign * last_sign_ - alike_) * std::max(0.02, 1 / (windows_ + 1));
    last_sign_ = sign;
    if (past_.size() < kKept) past_.emplace_back();
    past_[next_] = {std::log(point + offset()), std::log(actual + offset())};
    next_ = (next_ + 1) % kKept;
}

Residuals::Sample Residuals::seen_from(double log_point) const {
    static const double kFade = std::exp2(-1 / kHalfLife);
    Sample out;
    out.size = past_.size();
    double age_weight = 1;
    double squares = 0;
    for (std::size_t i = 0; i < past_.size(); ++i) {
        const auto& one = past_[(next_ + kKept - 1 - i) % kKept];  // the youngest first
        const double off = (one.log_point - log_point) / kNear;
        const double near = std::exp(-0.5 * off * off);
        const double weight = age_weight * (kFar + (1 - kFar) * near);
        const double carried = near * one.log_point + (1 - near) * log_point;
        out.seen[i] = {static_cast<float>(one.log_actual - carried), static_cast<float>(weight)};
        out.weights += weight;
        squares += weight * weight;
        age_weight *= kFade;
    }
    out.effective = squares > 0 ? out.weights * out.weights / squares : 0;
    std::sort(out.seen.begin(), out.seen.begin() + static_cast<std::ptrdiff_t>(out.size),
              [](const Seen& a, const Seen& b) { return a.log_ratio < b.log_ratio; });
    return out;
}

double Residuals::Sample::quantile(double probability) const {
    if (size == 0) return 0;
    // One stands at the middle of its weight; linear between two.
    const double want = probability * weights;
    double below = 0;
    std::size_t i = 0;
    while (i + 1 < size && below + seen[i].weight + 0.5 * seen[i + 1].weight < want) {
        below += seen[i++].weight;
    }
    const double here = seen[i].log_ratio;
    const double at = below + 0.5 * seen[i].weight;
    if (want <= at || i + 1 == size) return here;
    const double step = 0.5 * (seen[i].weight + seen[i + 1].weight);
    return here +
           (step > 0 ? std::min(1.0, (want - at) / step) : 0) * (seen[i + 1].log_ratio - here);
}

double Residuals::doubted_shift(const Sample& sample) const {
    const double median = sample.quantile(0.5);
    const double std = (sample.quantile(0.75) - sample.quantile(0.25)) / 1.349;
    const double alike = std::clamp(alike_, 0.0, 0.95);
    const double independent = std::max(sample.effective * (1 - alike) / (1 + alike), 1.0);
    // Variance of a median of so many normal values: π/2·σ²/n.
    const double variance = kMedianDoubt * 1.57 * std * std / independent;
    return median * std::min(1.0, variance / (median * median + 1e-12));
}

Quantiles Residuals::around(double point, const Quantiles& probabilities) const {
    const double c = offset();
    const auto sample = seen_from(std::log(point + c));
    const double prior_share = kPriorErrors / (kPriorErrors + sample.effective);
    const double shift = doubted_shift(sample);
    Quantiles out{};
    for (std::size_t q = 0; q < out.size(); ++q) {
        const double z = normal_quantile(probabilities[q]);
        // Of counts the square root is nearly normal with a standard deviation of ½ (Poisson).
        const double root = std::max(0.0, std::sqrt(point) + 0.5 * z);
        const double prior = counts_ ? std::log((root * root + c) / (point + c)) : kPriorStd * z;
        const double learned = sample.quantile(probabilities[q]) - shift;
        const double log_ratio = prior_share * prior + (1 - prior_share) * learned;
        out[q] = std::max(0.0, (point + c) * std::exp(log_ratio) - c);
    }
    return out;
}

}  // namespace stator::forecast
