#include "stator/estimate/forecast/predictor.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "stator/estimate/forecast/arima.h"
#include "stator/estimate/forecast/calibrated.h"
#include "stator/estimate/forecast/constant.h"
#include "stator/estimate/forecast/ewma.h"
#include "stator/estimate/forecast/kalman.h"
#include "stator/estimate/forecast/logarithmic.h"
#include "stator/estimate/forecast/mix.h"
#include "stator/estimate/forecast/reference_kalman.h"
#include "stator/estimate/forecast/seasonal.h"

namespace stator::forecast {

double Forecast::at(double probability) const {
    if (!(probability > kQuantiles.front())) return quantiles.front();
    if (probability >= kQuantiles.back()) return quantiles.back();
    const auto above = std::upper_bound(kQuantiles.begin(), kQuantiles.end(), probability);
    const auto i = static_cast<std::size_t>(above - kQuantiles.begin());
    const double share = (probability - kQuantiles[i - 1]) / (kQuantiles[i] - kQuantiles[i - 1]);
    return quantiles[i - 1] + share * (quantiles[i] - quantiles[i - 1]);
}

Forecast::Interval Forecast::interval(double probability) const {
    const double low = at(0.5 * (1 - probability));
    if (low <= 0) return {0, at(probability)};
    return {low, at(0.5 * (1 + probability))};
}

namespace {

/// The model of this name; null if there is none.
std::unique_ptr<Model> make_model(std::string_view name, const PredictorOptions& options) {
    if (name == "constant") return std::make_unique<Constant>();
    if (name == "ewma") return std::make_unique<Ewma>();
    if (name == "kalman") return std::make_unique<Kalman>();
    if (name == "arima") return std::make_unique<Arima>();
    if (name == "seasonal") {
        return std::make_unique<Seasonal>(options.window_s, options.season_s);
    }
    if (name == "reference-kalman") return std::make_unique<ReferenceKalman>();
    return nullptr;
}

std::unique_ptr<Predictor> make_mix(PredictorOptions options) {
    std::vector<std::unique_ptr<Calibrated>> experts;
    for (const auto name : {"constant", "ewma", "kalman", "arima", "seasonal"}) {
        experts.push_back(std::make_unique<Calibrated>(name, make_model(name, options), options));
    }
    for (const auto name : {"ewma", "kalman", "seasonal"}) {
        experts.push_back(std::make_unique<Calibrated>(
            name, std::make_unique<Logarithmic>(make_model(name, options)), options));
    }
    return std::make_unique<Mix>(std::move(experts), options);
}

}  // namespace

std::vector<std::string_view> predictor_names() {
    return {"constant", "ewma", "kalman", "arima", "seasonal", "mix", "reference-kalman"};
}

Result<std::unique_ptr<Predictor>> make_predictor(std::string_view name, PredictorOptions options) {
    if (name == "mix") return make_mix(options);
    if (auto model = make_model(name, options)) {
        return std::make_unique<Calibrated>(name, std::move(model), options);
    }
    std::string known;
    for (const auto one : predictor_names()) known.append(known.empty() ? "" : ", ").append(one);
    return error(ErrorCode::kInvalidArgument, "there is no predictor '{}'; there are {}", name,
                 known);
}

}  // namespace stator::forecast
