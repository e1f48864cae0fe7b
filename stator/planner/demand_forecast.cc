#include "stator/planner/demand_forecast.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace stator::planner {
namespace {

constexpr double kFade = 0.97;  ///< a window, of the means of a request
constexpr double kMost = 1e15;
constexpr double kRecent_s = 1800;
constexpr double kMostWindows = 100;

double fine(double v) { return std::isfinite(v) ? std::clamp(v, 0.0, kMost) : 0.0; }

}  // namespace

Result<std::unique_ptr<DemandForecast>> DemandForecast::make(const PlannerOptions& options) {
    std::unique_ptr<DemandForecast> f(new DemandForecast(options));
    forecast::PredictorOptions o;
    o.window_s = options.interval_s;
    o.season_s = options.season_s;
    o.counts = true;
    auto requests = forecast::make_predictor(options.predictor, o);
    auto images = forecast::make_predictor(options.predictor, o);
    o.counts = false;
    auto tokens = forecast::make_predictor(options.predictor, o);
    for (auto* made : {&requests, &images, &tokens}) {
        if (!*made) return tl::unexpected(std::move(made->error()));
    }
    f->requests_ = std::move(*requests);
    f->images_ = std::move(*images);
    f->prompt_tokens_ = std::move(*tokens);
    return f;
}

void DemandForecast::observe(const DemandWindow& window) {
    if (!std::isfinite(window.seconds) || window.seconds <= 0) return;
    const double before = collected_.seconds;
    add(collected_, window);
    collected_.seconds = before + window.seconds;
    // Enough for a window, or for several.
    const double windows = std::round(collected_.seconds / interval_s_);
    if (windows < 1 || collected_.seconds < 0.75 * interval_s_) return;
    take(collected_, std::min(windows, kMostWindows));
    collected_ = {};
}

void DemandForecast::take(const DemandWindow& w, double windows) {
    // In one of these windows, as if they had been equal.
    const double scale = interval_s_ / w.seconds;
    for (double i = 0; i < windows; ++i) {
        requests_->observe(std::round(fine(w.offered) * scale));
        prompt_tokens_->observe(fine(w.prompt_tokens) * scale);
        images_->observe(std::round(fine(w.media_items) * scale));
    }
    windows_ += static_cast<std::uint64_t>(windows);
    any_images_ = any_images_ || fine(w.media_items) > 0;
    last_ = {fine(w.offered) / w.seconds, fine(w.prompt_tokens) / w.seconds,
             fine(w.media_items) / w.seconds};
    recent_.push_back(last_);
    while (static_cast<double>(recent_.size()) * interval_s_ > kRecent_s) recent_.pop_front();
    const auto fade = [&](double& sum, double value) { sum = sum * kFade + fine(value); };
    if (fine(w.offered) > 0) {
        fade(offered_sum_, w.offered);
        fade(prompt_sum_, w.prompt_tokens);
    }
    if (fine(w.finished) > 0) {
        fade(finished_sum_, w.finished);
        fade(output_sum_, w.output_tokens);
    }
    if (fine(w.started_prompt_tokens) > 0) {
        fade(started_sum_, w.started_prompt_tokens);
        fade(cached_sum_, std::min(fine(w.cached_tokens), fine(w.started_prompt_tokens)));
    }
}

void DemandForecast::observe_missing(std::size_t windows) {
    windows = std::min(windows, static_cast<std::size_t>(kMostWindows));
    for (std::size_t i = 0; i < windows; ++i) {
        requests_->observe_missing();
        prompt_tokens_->observe_missing();
        images_->observe_missing();
    }
}

double DemandForecast::cached_ratio() const {
    return std::min(1.0, ratio(cached_sum_, started_sum_));
}

int DemandForecast::steps(double horizon_s) const {
    return static_cast<int>(std::clamp(std::ceil(horizon_s / interval_s_), 1.0, 10'000.0));
}

DemandForecast::Demand DemandForecast::sized(double horizon_s, double quantile) const {
    Demand seen;
    for (const Demand& w : recent_) {
        seen.requests = std::max(seen.requests, w.requests);
        seen.prompt_tokens = std::max(seen.prompt_tokens, w.prompt_tokens);
        seen.images = std::max(seen.images, w.images);
    }
    Demand most;
    const int last = steps(horizon_s);
    const auto look = [&](const forecast::Predictor& predictor, int step, double ever,
                          double& value) {
        const forecast::Forecast f = predictor.forecast(step);
        const double capped =
            std::min(f.at(quantile) / interval_s_, std::max(ever, f.mean / interval_s_));
        value = std::max(value, fine(capped));
    };
    for (const int step : {1, (last + 1) / 2, last}) {
        look(*requests_, step, seen.requests, most.requests);
        look(*prompt_tokens_, step, seen.prompt_tokens, most.prompt_tokens);
        if (any_images_) look(*images_, step, seen.images, most.images);
    }
    return most;
}

std::vector<ForecastView> DemandForecast::views(double horizon_s, double quantile) const {
    std::vector<ForecastView> out;
    struct Figure {
        std::string_view of;
        const forecast::Predictor* predictor;
        double actual;
    };
    for (const Figure& f : {Figure{"requests", requests_.get(), last_.requests},
                            Figure{"prompt tokens", prompt_tokens_.get(), last_.prompt_tokens},
                            Figure{"images", images_.get(), last_.images}}) {
        if (f.of == "images" && !any_images_) continue;
        const int last = steps(horizon_s);
        for (const int step : {1, last}) {
            if (step == last && last == 1 && !out.empty() && out.back().of == f.of) break;
            const forecast::Forecast x = f.predictor->forecast(step);
            ForecastView v;
            v.of = f.of;
            v.horizon_s = step * interval_s_;
            v.actual = f.actual;
            v.mean = fine(x.mean) / interval_s_;
            v.low = fine(x.at(0.05)) / interval_s_;
            v.high = fine(x.at(0.95)) / interval_s_;
            v.sized = fine(x.at(quantile)) / interval_s_;
            out.push_back(std::move(v));
        }
    }
    return out;
}

}  // namespace stator::planner
