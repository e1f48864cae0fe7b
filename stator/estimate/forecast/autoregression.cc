#include "stator/estimate/forecast/autoregression.h"

#include <algorithm>
#include <cmath>

namespace stator::forecast {
namespace {

constexpr std::size_t kMost = Autoregression::kMostLags;
constexpr std::size_t kLeastValues = 3 * kMost;
constexpr std::size_t kTerms = kMost + 1;  // the constant is the first

using Vector = std::array<double, kTerms>;
using Matrix = std::array<Vector, kTerms>;

/// Solves matrix·x = right in place by Cholesky's decomposition of the first n rows and columns.
Vector solve(Matrix matrix, Vector right, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            double sum = matrix[i][j];
            for (std::size_t k = 0; k < j; ++k) sum -= matrix[i][k] * matrix[j][k];
            matrix[i][j] = i == j ? std::sqrt(std::max(sum, 1e-300)) : sum / matrix[j][j];
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < i; ++k) right[i] -= matrix[i][k] * right[k];
        right[i] /= matrix[i][i];
    }
    for (std::size_t i = n; i-- > 0;) {
        for (std::size_t k = i + 1; k < n; ++k) right[i] -= matrix[k][i] * right[k];
        right[i] /= matrix[i][i];
    }
    return right;
}

}  // namespace

Autoregression fit_autoregression(std::span<const double> series, std::size_t lags,
                                  bool differenced) {
    Autoregression out{.lags = std::min(lags, kMost), .differenced = differenced};
    if (series.size() < kLeastValues) {
        out.lags = 0;
        out.differenced = false;
        for (const double value : series) out.constant += value;
        out.constant /= std::max<double>(1, static_cast<double>(series.size()));
        return out;
    }
    const std::size_t first = kMost + 1;
    const auto x = [&](std::size_t t) {
        return differenced ? series[t] - series[t - 1] : series[t];
    };
    // A difference has no constant; its row is that of the identity.
    const std::size_t terms = out.lags + 1;
    Matrix normal{};
    Vector right{};
    Vector row{};
    for (std::size_t t = first; t < series.size(); ++t) {
        row[0] = differenced ? 0 : 1;
        for (std::size_t i = 0; i < out.lags; ++i) row[i + 1] = x(t - 1 - i);
        for (std::size_t i = 0; i < terms; ++i) {
            for (std::size_t j = 0; j <= i; ++j) normal[i][j] += row[i] * row[j];
            right[i] += row[i] * x(t);
        }
    }
    if (differenced) normal[0][0] = 1;
    double trace = 0;
    for (std::size_t i = 1; i < terms; ++i) trace += normal[i][i];
    for (std::size_t i = 1; i < terms; ++i) normal[i][i] += 1e-9 * trace + 1e-12;
    const auto solution = solve(normal, right, terms);
    out.constant = solution[0];
    for (std::size_t i = 0; i < out.lags; ++i) out.coefficients[i] = solution[i + 1];

    double squares = 0;
    for (std::size_t t = first; t < series.size(); ++t) {
        double said = out.constant;
        for (std::size_t i = 0; i < out.lags; ++i) said += out.coefficients[i] * x(t - 1 - i);
        squares += (x(t) - said) * (x(t) - said);
    }
    const auto n = static_cast<double>(series.size() - first);
    out.variance = squares / n;
    const double parameters = static_cast<double>(out.lags) + (differenced ? 0 : 1);
    const double k = parameters + 1;
    out.aic =
        n * std::log(out.variance + 1e-12) + 2 * k + 2 * k * (k + 1) / std::max(n - k - 1, 1.0);
    return out;
}

Autoregression choose_autoregression(std::span<const double> series) {
    auto best = fit_autoregression(series, 0, false);
    for (const bool differenced : {false, true}) {
        for (std::size_t lags = 0; lags <= kMost; ++lags) {
            const auto one = fit_autoregression(series, lags, differenced);
            if (one.aic < best.aic) best = one;
        }
    }
    return best;
}

void Autoregression::continue_series(std::span<const double> series, std::size_t steps,
                                     std::vector<double>& out) const {
    std::array<double, kMostLags + 1> recent{};  // the newest first
    for (std::size_t i = 0; i < recent.size() && i < series.size(); ++i) {
        recent[i] = series[series.size() - 1 - i];
    }
    for (std::size_t step = 0; step < steps; ++step) {
        double next = differenced ? recent[0] : constant;
        for (std::size_t i = 0; i < lags; ++i) {
            next += coefficients[i] * (differenced ? recent[i] - recent[i + 1] : recent[i]);
        }
        std::shift_right(recent.begin(), recent.end(), 1);
        recent[0] = next;
        out.push_back(next);
    }
}

}  // namespace stator::forecast
