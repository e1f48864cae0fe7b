#pragma once

#include <string>
#include <vector>

#include "stator/estimate/forecast/conformal.h"
#include "stator/estimate/forecast/horizons.h"
#include "stator/estimate/forecast/model.h"
#include "stator/estimate/forecast/predictor.h"
#include "stator/estimate/forecast/residuals.h"

namespace stator::forecast {

/// A model as a predictor: its points, and around them what it got wrong of late at that horizon.
class Calibrated final : public Predictor {
  public:
    Calibrated(std::string_view name, std::unique_ptr<Model> model, PredictorOptions options);

    [[nodiscard]] std::string_view name() const override { return name_; }
    void observe(double value) override;
    void observe_missing() override;
    [[nodiscard]] Forecast forecast(int steps) const override;

    /// What was said of the window that comes next, kHorizons[horizon] windows before it; null if
    /// nothing was.
    [[nodiscard]] const Forecast* due(std::size_t horizon) const {
        return horizons_[horizon].said.due();
    }
    [[nodiscard]] const Forecast& now(std::size_t horizon) const { return now_[horizon]; }

  private:
    struct Horizon {
        Horizon(int steps, bool counts) : said(steps), residuals(counts), conformal(steps) {}
        Pending<Forecast> said;
        Residuals residuals;
        Conformal conformal;
    };
    void look_ahead();

    std::string name_;
    std::unique_ptr<Model> model_;
    PredictorOptions options_;
    std::vector<Horizon> horizons_;
    std::array<Forecast, kHorizons.size()> now_{};
    bool started_ = false;
};

/// Of any horizon, from those at kHorizons.
[[nodiscard]] Forecast between_horizons(int steps, const std::array<Forecast, kHorizons.size()>& at,
                                        bool counts);

/// Ascending, finite, at least 0; whole numbers if `counts`, and then at least as wide as Poisson
/// noise around the median.
void make_sound(Quantiles& quantiles, bool counts);

}  // namespace stator::forecast
