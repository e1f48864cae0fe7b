#include "stator/planner/profile_fit.h"

#include <algorithm>
#include <cmath>

namespace stator::planner {
namespace {

struct Line {
    double at_zero = 0;
    double slope = 0;
};

/// y = at_zero + slope·x. Each point counts by 1/y², so that relative errors are alike: a long
/// prompt must not drown the short ones.
template <typename Point, typename X>
Result<Line> fit(std::span<const Point> points, X Point::* x) {
    double w = 0;
    double wx = 0;
    double wy = 0;
    double wxx = 0;
    double wxy = 0;
    for (const Point& p : points) {
        if (!(p.*x > 0) || !(p.seconds > 0) || !std::isfinite(p.*x) || !std::isfinite(p.seconds)) {
            return error(ErrorCode::kInvalidArgument,
                         "measured figures must be positive: {} s at {}", p.seconds, p.*x);
        }
        const double weight = 1 / (p.seconds * p.seconds);
        w += weight;
        wx += weight * p.*x;
        wy += weight * p.seconds;
        wxx += weight * p.*x * p.*x;
        wxy += weight * p.*x * p.seconds;
    }
    if (w == 0) return error(ErrorCode::kInvalidArgument, "nothing was measured");
    const double spread = w * wxx - wx * wx;
    constexpr double kAlike = 1e-9;
    Line line;
    if (spread > kAlike * w * wxx) line.slope = std::max(0.0, (w * wxy - wx * wy) / spread);
    line.at_zero = (wy - line.slope * wx) / w;
    if (line.at_zero < 0) {
        // Through the origin, then.
        line.at_zero = 0;
        line.slope = wxy / wxx;
    }
    return line;
}

}  // namespace

Result<StepCost> fit_step_cost(std::span<const PromptPoint> prompts,
                               std::span<const DecodePoint> decodes) {
    const bool different = std::ranges::any_of(
        prompts, [&](const PromptPoint& p) { return p.tokens != prompts.front().tokens; });
    if (!different) {
        return error(ErrorCode::kInvalidArgument,
                     "prompts of at least two different lengths must be measured");
    }
    const auto prompt = fit(prompts, &PromptPoint::tokens);
    if (!prompt) return tl::unexpected(prompt.error());
    const auto decode = fit(decodes, &DecodePoint::running);
    if (!decode) return tl::unexpected(decode.error());
    StepCost cost;
    cost.base_s = decode->at_zero;
    cost.decode_token_s = decode->slope;
    cost.prefill_token_s = prompt->slope;
    return cost;
}

}  // namespace stator::planner
