#pragma once

#include <memory>
#include <span>
#include <vector>

#include "stator/estimate/forecast/calibrated.h"

namespace stator::forecast {

/// Several predictors weighted by what they lost of late: at every horizon and for every quantile
/// anew, since who is good at the next window need not be good two minutes on, nor one that knows
/// the middle its edges. Exponential weights on the quantile loss of logarithms (a false zero costs
/// a lot, twice as much costs as much as half), discounted; quantiles are averaged as logarithms.
/// The median is mixed from the predictors' medians and their points. The mixed quantiles are
/// corrected once more (Conformal). Sources: Cesa-Bianchi and Lugosi, "Prediction, Learning, and
/// Games" (2006), 2.2 and 2.11; Berrisch and Ziel, "CRPS learning" (2023).
class Mix final : public Predictor {
  public:
    Mix(std::vector<std::unique_ptr<Calibrated>> experts, PredictorOptions options);

    [[nodiscard]] std::string_view name() const override { return "mix"; }
    void observe(double value) override;
    void observe_missing() override;
    [[nodiscard]] Forecast forecast(int steps) const override;

    /// Weights of the candidates for the median at kHorizons[horizon], their sum 1: the experts'
    /// medians in the order given, then their points.
    [[nodiscard]] std::vector<double> median_weights(std::size_t horizon) const;

  private:
    struct Horizon {
        Horizon(int steps, std::size_t candidates)
            : said(steps), conformal(steps), losses(kQuantiles.size() * candidates) {}
        Pending<Forecast> said;
        Conformal conformal;
        std::vector<double> losses;  ///< discounted sums; the candidates of each quantile in turn
        double seen = 0;             ///< discounted number of windows
    };

    [[nodiscard]] std::size_t candidates() const { return 2 * experts_.size(); }
    [[nodiscard]] double logarithm(double value) const;
    /// What a candidate says of a quantile, given what its expert said.
    [[nodiscard]] double said_by(std::size_t candidate, const Forecast& said, std::size_t q) const {
        return candidate < experts_.size() ? said.quantiles[q] : said.mean;
    }
    /// Fills in the weights of the candidates that a quantile has; returns them.
    std::span<double> weigh(const Horizon& horizon, std::size_t q,
                            std::vector<double>& weights) const;
    void learn(std::size_t h, double value);
    void look_ahead();
    [[nodiscard]] Forecast mixed(std::size_t h) const;

    std::vector<std::unique_ptr<Calibrated>> experts_;
    PredictorOptions options_;
    std::vector<Horizon> horizons_;
    std::array<Forecast, kHorizons.size()> now_{};
    bool started_ = false;
};

}  // namespace stator::forecast
