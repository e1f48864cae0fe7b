#include "stator/estimate/forecast/predictor.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "stator/estimate/forecast/calibrated.h"
#include "stator/estimate/forecast/constant.h"
#include "stator/estimate/forecast/ewma.h"
#include "stator/estimate/forecast/kalman.h"
#include "stator/estimate/forecast/reference_kalman.h"

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

template <typename Of>
std::unique_ptr<Predictor> calibrated(std::string_view name, PredictorOptions options) {
    return std::make_unique<Calibrated>(name, std::make_unique<Of>(), options);
}

}  // namespace

std::vector<std::string_view> predictor_names() {
    return {"constant", "ewma", "kalman", "reference-kalman"};
}

Result<std::unique_ptr<Predictor>> make_predictor(std::string_view name, PredictorOptions options) {
    if (name == "constant") return calibrated<Constant>(name, options);
    if (name == "ewma") return calibrated<Ewma>(name, options);
    if (name == "kalman") return calibrated<Kalman>(name, options);
    if (name == "reference-kalman") return calibrated<ReferenceKalman>(name, options);
    std::string known;
    for (const auto one : predictor_names()) known.append(known.empty() ? "" : ", ").append(one);
    return error(ErrorCode::kInvalidArgument, "there is no predictor '{}'; there are {}", name,
                 known);
}

}  // namespace stator::forecast
