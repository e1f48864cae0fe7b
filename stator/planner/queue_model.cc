#include "stator/planner/queue_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace stator::planner {
namespace {

struct Node {
    double normal;  ///< standard normal deviate
    double weight;
};
/// Prompt lengths are looked at here, denser where limits bind.
constexpr std::array<Node, 7> kNodes{{{-0.674, 0.5},
                                      {0.385, 0.3},
                                      {1.036, 0.1},
                                      {1.476, 0.05},
                                      {1.96, 0.03},
                                      {2.326, 0.012},
                                      {2.75, 0.008}}};
/// Encoders have this part of the time to the first token.
constexpr double kEncodeShare = 0.3;
constexpr double kKvFill = 0.9;

/// Share of prompts that take longer than `limit_s`: their wait for others and their own time.
/// `service`: mean seconds; `use`: of the servers, below 1.
double late(double service, double scv, double use, double servers, double limit_s) {
    if (use >= 1) return 1;
    const double chance = std::pow(use, std::sqrt(2 * (servers + 1)) - 1);
    // Mean wait of those that wait, M/G/n: service (1 + scv) / 2 / (n (1 - use)).
    const double mean = service * (1 + scv) / 2 / (servers * (1 - use));
    const double sigma2 = std::log1p(scv);
    const double mu = std::log(std::max(1e-12, service)) - sigma2 / 2;
    double share = 0;
    for (const Node& node : kNodes) {
        const double own = std::exp(mu + node.normal * std::sqrt(sigma2));
        const double left = limit_s - own;
        const double p = left <= 0 ? 1.0 : chance * std::exp(-left / std::max(1e-12, mean));
        share += node.weight * std::min(1.0, p);
    }
    return std::min(1.0, share);
}

double allowed(const SloTarget& slo) { return 1 - slo.share; }

}  // namespace

Expected expect(Role role, const StepCost& cost, double step_tokens, const RoleLoad& load,
                double workers, const SloTarget& slo) {
    constexpr double kInfinite = std::numeric_limits<double>::infinity();
    Expected e;
    if (role == Role::kEncode) {
        e.utilization = load.images * cost.image_s / workers;
        e.ttft_miss = load.images > 0 ? late(cost.image_s, 0.25, e.utilization, workers,
                                             slo.ttft_s * kEncodeShare)
                                      : 0;
        e.utilization = std::min(1.0, e.utilization);
        return e;
    }
    const double prefill = role == Role::kDecode ? 0 : load.prefill_tokens / workers;
    const double decode = role == Role::kPrefill ? 0 : load.decode_tokens / workers;
    const double taken = prefill * cost.prefill_token_s + decode * cost.decode_token_s;
    if (taken >= 1) return {1, prefill > 0 ? 1.0 : 0.0, kInfinite, kInfinite, kInfinite};
    e.itl_s = cost.base_s / (1 - taken);
    e.sequences = decode * e.itl_s;
    e.kv_tokens = e.sequences * load.context;
    e.utilization = taken;
    if (prefill <= 0 || load.requests <= 0) return e;
    // While prompts wait, steps are full.
    const double token_s =
        cost.prefill_token_s + (cost.base_s + cost.decode_token_s * e.sequences) / step_tokens;
    const double use = prefill * token_s;
    const double own = load.prompt * token_s + e.itl_s;
    e.ttft_miss = late(own, load.prompt_scv, use, workers, slo.ttft_s);
    e.utilization = std::min(1.0, use);
    return e;
}

Need need(Role role, const RoleProfile& profile, const StepCost& cost, const RoleLoad& load,
          std::uint32_t most, const SloTarget& slo) {
    most = std::max(1U, most);
    const double chunk = std::max(1.0, static_cast<double>(profile.step_tokens));
    const auto at = [&](std::uint32_t n) { return expect(role, cost, chunk, load, n, slo); };
    const Expected best = at(most);
    // What no number of workers can change is not held against a smaller one.
    const double miss = std::max(allowed(slo), best.ttft_miss + 0.25 * allowed(slo));
    const double itl = std::max(slo.itl_s, best.itl_s * 1.1);
    const auto good = [&](const Expected& e) {
        if (e.utilization >= 1 || e.ttft_miss > miss) return false;
        if (role == Role::kPrefill || role == Role::kEncode) return true;
        if (e.itl_s > itl) return false;
        if (profile.max_running > 0 && e.sequences > profile.max_running) return false;
        return profile.kv_tokens == 0 ||
               e.kv_tokens <= kKvFill * static_cast<double>(profile.kv_tokens);
    };
    std::uint32_t low = 0;  // not enough
    std::uint32_t high = most;
    while (low + 1 < high) {
        const std::uint32_t middle = low + (high - low) / 2;
        (good(at(middle)) ? high : low) = middle;
    }
    Need n;
    n.workers = high;
    n.expected = at(high);
    n.reachable = best.utilization < 1 && best.ttft_miss <= allowed(slo) &&
                  (role == Role::kPrefill || role == Role::kEncode || best.itl_s <= slo.itl_s);
    return n;
}

}  // namespace stator::planner
