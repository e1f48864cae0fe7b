#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::forecast {

/// The quantiles that every forecast gives, ascending.
inline constexpr std::array<double, 11> kQuantiles{0.01, 0.05, 0.1,   0.25, 0.5,  0.75,
                                                   0.9,  0.95, 0.975, 0.99, 0.995};

/// Which of them is the median.
inline constexpr std::size_t kMedian = 4;

/// What one window's value will be: a distribution, as its mean and some of its quantiles. All
/// values are finite, at least 0, and the quantiles do not fall.
struct Forecast {
    double mean = 0;
    std::array<double, kQuantiles.size()> quantiles{};

    /// The value below which the window stays with `probability`; linear between kQuantiles, the
    /// outermost of them beyond.
    [[nodiscard]] double at(double probability) const;

    struct Interval {
        double low = 0;
        double high = 0;
    };
    /// Where the value lies with `probability`: as much outside on either side. Where the lower end
    /// would be 0 nothing can lie below it, and the whole rest lies above.
    [[nodiscard]] Interval interval(double probability) const;
};

struct PredictorOptions {
    double window_s = 10;          ///< a window's length
    bool counts = false;           ///< values are whole numbers (arrivals): at least Poisson noise
    double season_s = 86'400;      ///< for the seasonal one: after which time a pattern comes again
    std::size_t history = 16'384;  ///< windows kept at most, where a predictor keeps any
};

/// Foretells a series of windows. Not thread-safe; copies nothing of the outside; bounded memory.
class Predictor {
  public:
    virtual ~Predictor() = default;
    [[nodiscard]] virtual std::string_view name() const = 0;
    /// The next window's value. What is not finite or negative counts as missing.
    virtual void observe(double value) = 0;
    /// The next window passed unseen.
    virtual void observe_missing() = 0;
    /// Of the window `steps` (≥ 1) after the last observed one. Before any observation: all 0.
    [[nodiscard]] virtual Forecast forecast(int steps) const = 0;
};

/// By name: "constant" (the last value), "ewma", "kalman", "arima", "seasonal", "mix", and
/// "reference-kalman" to compare with. kInvalidArgument names the ones that there are.
[[nodiscard]] Result<std::unique_ptr<Predictor>> make_predictor(std::string_view name,
                                                                PredictorOptions options);
[[nodiscard]] std::vector<std::string_view> predictor_names();

}  // namespace stator::forecast
