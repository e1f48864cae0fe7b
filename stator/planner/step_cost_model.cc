#include "stator/planner/step_cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace stator::planner {
namespace {

constexpr double kFade = 0.98;        ///< a window
constexpr double kPriorSeconds = 20;  ///< what a profile counts, for each of its points
constexpr double kRidge = 1e-6;       ///< of each factor's own square
constexpr double kMost = 1e12;

bool fine(double v) { return std::isfinite(v) && v >= 0 && v < kMost; }

}  // namespace

StepCostModel::StepCostModel(const std::optional<RoleProfile>& profile) {
    if (!profile) return;
    const StepCost& c = profile->cost;
    prior_ = c;
    cost_ = c;
    known_ = c.base_s + c.prefill_token_s + c.decode_token_s + c.image_s > 0;
    const auto chunk = static_cast<double>(profile->step_tokens);
    for (const double prefill : {0.0, chunk / 4, chunk}) {
        for (const double decode : {0.0, 8.0, 64.0}) {
            const double y = c.base_s + c.prefill_token_s * prefill + c.decode_token_s * decode;
            if (y > 0) add_row({1, prefill, decode}, y, kPriorSeconds / y);
        }
    }
    std::swap(squares_, prior_squares_);
    std::swap(products_, prior_products_);
    if (c.image_s > 0) {
        images_ = kPriorSeconds / c.image_s;
        image_seconds_ = kPriorSeconds;
    }
}

void StepCostModel::add_row(const Vector& x, double y, double weight) {
    for (std::size_t i = 0; i < kFactors; ++i) {
        for (std::size_t k = 0; k < kFactors; ++k) squares_[i][k] += weight * x[i] * x[k];
        products_[i] += weight * x[i] * y;
    }
}

void StepCostModel::observe(double steps, double prefill_tokens, double decode_tokens,
                            double seconds) {
    if (!fine(steps) || !fine(prefill_tokens) || !fine(decode_tokens) || !fine(seconds)) return;
    if (steps < 1 || seconds <= 0) return;
    const Vector x{1, prefill_tokens / steps, decode_tokens / steps};
    const double y = seconds / steps;
    add_row(x, y, steps);
    if (prior_) {
        const double said =
            prior_->base_s + prior_->prefill_token_s * x[1] + prior_->decode_token_s * x[2];
        if (said > 0) {
            log_ratio_ += seconds * std::log(y / said);
            ratio_weight_ += seconds;
        }
    }
    solve();
}

void StepCostModel::observe_images(double images, double seconds) {
    if (!fine(images) || !fine(seconds) || images < 1 || seconds <= 0) return;
    images_ += images;
    image_seconds_ += seconds;
    cost_.image_s = image_seconds_ / images_;
    known_ = true;
}

void StepCostModel::fade() {
    for (Vector& row : squares_) {
        for (double& v : row) v *= kFade;
    }
    for (Vector& row : prior_squares_) {
        for (double& v : row) v *= kFade;
    }
    for (double& v : products_) v *= kFade;
    for (double& v : prior_products_) v *= kFade;
    images_ *= kFade;
    image_seconds_ *= kFade;
    log_ratio_ *= kFade;
    ratio_weight_ *= kFade;
}

double StepCostModel::contradiction() const {
    return ratio_weight_ > 0 ? std::exp(std::clamp(log_ratio_ / ratio_weight_, -20.0, 20.0)) : 1.0;
}

/// The subset of factors with the least residual among those whose solution is not negative.
void StepCostModel::solve() {
    const double scale = contradiction();
    std::array<Vector, kFactors> squares = squares_;
    Vector products = products_;
    for (std::size_t i = 0; i < kFactors; ++i) {
        products[i] += scale * prior_products_[i];
        for (std::size_t k = 0; k < kFactors; ++k) squares[i][k] += prior_squares_[i][k];
    }
    Vector best{};
    double least = std::numeric_limits<double>::infinity();
    for (unsigned subset = 1; subset < (1U << kFactors); ++subset) {
        std::array<std::size_t, kFactors> used{};
        std::size_t n = 0;
        for (std::size_t i = 0; i < kFactors; ++i) {
            if ((subset >> i & 1U) != 0 && squares[i][i] > 0) used[n++] = i;
        }
        if (n == 0) continue;
        // Gauss with pivots, in units in which each factor's square is 1.
        std::array<std::array<double, kFactors + 1>, kFactors> m{};
        const auto unit = [&](std::size_t i) { return std::sqrt(squares[used[i]][used[i]]); };
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t k = 0; k < n; ++k) {
                m[i][k] = squares[used[i]][used[k]] / (unit(i) * unit(k)) + (i == k ? kRidge : 0);
            }
            m[i][n] = products[used[i]] / unit(i);
        }
        for (std::size_t i = 0; i < n; ++i) {
            std::size_t pivot = i;
            for (std::size_t r = i + 1; r < n; ++r) {
                if (std::abs(m[r][i]) > std::abs(m[pivot][i])) pivot = r;
            }
            std::swap(m[i], m[pivot]);
            if (std::abs(m[i][i]) < 1e-12) break;
            for (std::size_t r = 0; r < n; ++r) {
                if (r == i) continue;
                const double f = m[r][i] / m[i][i];
                for (std::size_t k = i; k <= n; ++k) m[r][k] -= f * m[i][k];
            }
        }
        Vector x{};
        bool good = true;
        for (std::size_t i = 0; i < n; ++i) {
            const double v = m[i][n] / m[i][i] / unit(i);
            good = good && std::isfinite(v) && v >= 0;
            x[used[i]] = v;
        }
        if (!good) continue;
        double residual = 0;  // but for a constant
        for (std::size_t i = 0; i < kFactors; ++i) {
            residual -= 2 * x[i] * products[i];
            for (std::size_t k = 0; k < kFactors; ++k) residual += x[i] * x[k] * squares[i][k];
        }
        if (residual < least) {
            least = residual;
            best = x;
        }
    }
    if (!std::isfinite(least)) return;
    cost_.base_s = best[0];
    cost_.prefill_token_s = best[1];
    cost_.decode_token_s = best[2];
    known_ = true;
}

}  // namespace stator::planner
