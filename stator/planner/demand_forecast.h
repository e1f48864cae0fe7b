#pragma once

#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "stator/estimate/forecast/predictor.h"
#include "stator/planner/decision.h"
#include "stator/planner/observation.h"
#include "stator/planner/options.h"

namespace stator::planner {

/// What a pool will be asked for, from what it was asked for in windows of interval_s.
class DemandForecast {
  public:
    [[nodiscard]] static Result<std::unique_ptr<DemandForecast>> make(
        const PlannerOptions& options);

    /// Windows of another length count as so many of the usual one; too short ones are collected.
    void observe(const DemandWindow& window);
    void observe_missing(std::size_t windows);

    /// Per second, for the whole pool.
    struct Demand {
        double requests = 0;
        double prompt_tokens = 0;
        double images = 0;
    };
    /// The greatest of the windows until `horizon_s` from now; no quantile is taken to be above
    /// both the forecast's mean and everything that was seen in the last half hour.
    [[nodiscard]] Demand sized(double horizon_s, double quantile) const;
    [[nodiscard]] std::vector<ForecastView> views(double horizon_s, double quantile) const;

    [[nodiscard]] bool any() const { return windows_ > 0; }
    [[nodiscard]] const Demand& last() const { return last_; }
    [[nodiscard]] double isl() const { return ratio(prompt_sum_, offered_sum_); }
    [[nodiscard]] double osl() const { return ratio(output_sum_, finished_sum_); }
    [[nodiscard]] double cached_ratio() const;

  private:
    explicit DemandForecast(const PlannerOptions& options) : interval_s_(options.interval_s) {}
    static double ratio(double a, double b) { return b > 0 ? a / b : 0; }
    void take(const DemandWindow& window, double windows);
    [[nodiscard]] int steps(double horizon_s) const;

    double interval_s_;
    std::unique_ptr<forecast::Predictor> requests_;
    std::unique_ptr<forecast::Predictor> prompt_tokens_;
    std::unique_ptr<forecast::Predictor> images_;
    DemandWindow collected_;
    Demand last_;
    std::uint64_t windows_ = 0;
    std::deque<Demand> recent_;  ///< windows, of the last half hour
    bool any_images_ = false;
    // Faded sums, for means of a request.
    double offered_sum_ = 0;
    double prompt_sum_ = 0;
    double finished_sum_ = 0;
    double output_sum_ = 0;
    double started_sum_ = 0;
    double cached_sum_ = 0;
};

}  // namespace stator::planner
