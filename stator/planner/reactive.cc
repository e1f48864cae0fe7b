#include "stator/planner/reactive.h"

#include <fmt/format.h>

#include <algorithm>

namespace stator::planner {

ReactiveStep reactive_step(Role role, const std::vector<WorkerObservation>& workers,
                           const RoleProfile& profile, const StepCost& cost, double isl,
                           const ReactiveOptions& options) {
    ReactiveStep step;
    const bool prompts = role == Role::kAggregated || role == Role::kPrefill;
    const bool decodes = role == Role::kAggregated || role == Role::kDecode;
    const auto chunk = static_cast<double>(profile.step_tokens);
    double least_ttft = 1e300;
    double most_ttft = 0;
    double least_itl = 1e300;
    double most_itl = 0;
    double n = 0;
    for (const WorkerObservation& w : workers) {
        if (w.role != role || w.state != WorkerState::kReady) continue;
        if (!w.load) {
            step.because = "a worker's load is not known";
            return step;
        }
        const double sequences = w.load->running;
        const double itl = cost.base_s + cost.decode_token_s * sequences;
        const double token_s = cost.prefill_token_s + itl / chunk;
        const double ttft = (static_cast<double>(w.load->waiting_tokens) + isl) * token_s + itl;
        least_ttft = std::min(least_ttft, ttft);
        most_ttft = std::max(most_ttft, ttft);
        least_itl = std::min(least_itl, itl);
        most_itl = std::max(most_itl, itl);
        ++n;
    }
    if (n == 0) {
        step.because = "no worker is ready";
        return step;
    }
    if ((prompts && least_ttft > options.ttft_s) || (decodes && least_itl > options.itl_s)) {
        step.change = 1;
        step.because = fmt::format(
            "every worker is over a limit: at least {:.3f} s to the first "
            "token, {:.4f} s between tokens",
            least_ttft, least_itl);
        return step;
    }
    const double fewer = n > 1 ? n / (n - 1) : 1;
    const double most_t = options.ttft_s * options.sensitivity;
    const double most_i = options.itl_s * options.sensitivity;
    const bool idle = (!prompts || most_ttft < most_t) && (!decodes || most_itl < most_i);
    const bool fits = (!prompts || most_ttft * fewer < options.ttft_s) &&
                      (!decodes || most_itl * fewer < options.itl_s);
    if (n > 1 && idle && fits) {
        step.change = -1;
        step.because = fmt::format(
            "every worker is below {:.0f} % of the limits: at most {:.3f} s "
            "to the first token, {:.4f} s between tokens",
            100 * options.sensitivity, most_ttft, most_itl);
        return step;
    }
    step.because = fmt::format(
        "some workers are over a limit and others not, or none is: {:.3f} "
        "to {:.3f} s to the first token",
        least_ttft, most_ttft);
    return step;
}

}  // namespace stator::planner
