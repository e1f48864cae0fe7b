#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace stator::forecast {

/// x_t = constant + Σ coefficients[i]·x_{t−1−i} + noise, x the series or its differences.
struct Autoregression {
    static constexpr std::size_t kMostLags = 4;

    std::size_t lags = 0;      ///< p
    bool differenced = false;  ///< d: 0 or 1
    double constant = 0;
    std::array<double, kMostLags> coefficients{};
    double variance = 0;  ///< of the residuals: their mean square
    /// n·ln(variance) + 2·(lags + 1), n the number of equations: up to what all have in common,
    /// Akaike's criterion of normal noise.
    double aic = 0;

    /// What comes after `series`, the oldest first, so many steps on, appended to `out`.
    void continue_series(std::span<const double> series, std::size_t steps,
                         std::vector<double>& out) const;
};

/// Least squares on lagged values, conditional on the first kMostLags + 1 of the series, so that
/// all orders explain the same values and their criteria compare. The normal equations get a ridge
/// of 1e-9 of their trace: constant series have a solution, too. Fewer than 3·kMostLags values: the
/// mean.
[[nodiscard]] Autoregression fit_autoregression(std::span<const double> series, std::size_t lags,
                                                bool differenced);

/// The order with the least criterion: up to kMostLags lags, differenced or not. (A difference
/// needs no constant: a drift would go on for ever.)
[[nodiscard]] Autoregression choose_autoregression(std::span<const double> series);

}  // namespace stator::forecast
