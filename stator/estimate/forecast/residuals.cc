#include "stator/estimate/forecast/residuals.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {
namespace {

/// An error's weight halves in this many windows.
constexpr double kHalfLife = 100;
/// Width of the neighbourhood of points, in logarithms.
constexpr double kNear = 0.5;
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
    scale_ += (actual - scale_) * std::max(0.05, 1.0 / (time_ + 1));
    const double c = offset();
    const double sign = actual > point ? 1.0 : actual < point ? -1.0 : 0.0;
    alike_ += (sign * last_sign_ - alike_) * std::max(0.02, 1.0 / (time_ + 2));
    last_sign_ = sign;
    const Error error{static_cast<float>(std::log((actual + c) / (point + c))),
                      static_cast<float>(std::log(point + c)), time_++};
    if (by_size_.size() == kKept) {
        by_size_.erase(std::min_element(by_size_.begin(), by_size_.end(),
                                        [](auto& x, auto& y) { return x.time < y.time; }));
    }
    by_size_.insert(std::upper_bound(by_size_.begin(), by_size_.end(), error,
                                     [](auto& x, auto& y) { return x.log_ratio < y.log_ratio; }),
                    error);
}

double Residuals::median_shift(const std::array<double, kKept>& weights, double sum,
                               double effective) const {
    if (by_size_.empty()) return 0;
    const auto at = [&](double probability) {
        double below = 0;
        std::size_t i = 0;
        const double want = probability * sum;
        while (i + 1 < by_size_.size() && below + weights[i] + 0.5 * weights[i + 1] < want) {
            below += weights[i++];
        }
        double value = by_size_[i].log_ratio;
        const double at = below + 0.5 * weights[i];
        if (want > at && i + 1 < by_size_.size()) {
            const double step = 0.5 * (weights[i] + weights[i + 1]);
            value += (step > 0 ? std::min(1.0, (want - at) / step) : 0) *
                     (by_size_[i + 1].log_ratio - value);
        }
        return value;
    };
    const double median = at(0.5);
    const double spread = (at(0.75) - at(0.25)) / 1.349;
    const double alike = std::clamp(alike_, 0.0, 0.95);
    const double independent = std::max(effective * (1 - alike) / (1 + alike), 1.0);
    const double error = kMedianDoubt * 1.57 * spread * spread / independent;
    return median * std::min(1.0, error / (median * median + 1e-12));
}

Quantiles Residuals::around(double point, const Quantiles& probabilities) const {
    const double c = offset();
    const double here = std::log(point + c);
    std::array<double, kKept> weights{};
    double sum = 0;
    double squares = 0;
    for (std::size_t i = 0; i < by_size_.size(); ++i) {
        const auto& error = by_size_[i];
        const double off = (error.log_point - here) / kNear;
        const double near = kFar + (1 - kFar) * std::exp(-0.5 * off * off);
        const double weight = near * std::exp2((error.time - double(time_)) / kHalfLife);
        weights[i] = weight;
        sum += weight;
        squares += weight * weight;
    }
    const double effective = squares > 0 ? sum * sum / squares : 0;
    const double prior_share = kPriorErrors / (kPriorErrors + effective);
    // Off what the model says by this much, in the middle. It is believed as far as it is more than
    // the noise of such a median.
    const double shift = median_shift(weights, sum, effective);
    Quantiles out{};
    std::size_t i = 0;
    double below = 0;  // weight of the errors before i
    for (std::size_t q = 0; q < out.size(); ++q) {
        const double z = normal_quantile(probabilities[q]);
        // Of counts the square root is nearly normal with a standard deviation of ½ (Poisson).
        const double root = std::max(0.0, std::sqrt(point) + 0.5 * z);
        const double prior = counts_ ? std::log((root * root + c) / (point + c)) : kPriorStd * z;
        double learned = 0;
        if (!by_size_.empty()) {
            // An error stands at the middle of its weight; linear between two.
            const double want = probabilities[q] * sum;
            while (i + 1 < by_size_.size() && below + weights[i] + 0.5 * weights[i + 1] < want) {
                below += weights[i++];
            }
            const double at = below + 0.5 * weights[i];
            learned = by_size_[i].log_ratio;
            if (want > at && i + 1 < by_size_.size()) {
                const double step = 0.5 * (weights[i] + weights[i + 1]);
                const double share = step > 0 ? std::min(1.0, (want - at) / step) : 0;
                learned += share * (by_size_[i + 1].log_ratio - learned);
            }
        }
        learned -= shift;
        const double log_ratio = prior_share * prior + (1 - prior_share) * learned;
        out[q] = std::max(0.0, (point + c) * std::exp(log_ratio) - c);
    }
    return out;
}

}  // namespace stator::forecast
