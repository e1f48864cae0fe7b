#include "stator/planner/victims.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace stator::planner {
namespace {

/// What would be lost, in tokens that must be computed again or waited for. KV in use counts twice:
/// someone waits for it to end.
double loss(const WorkerObservation& w) {
    if (!w.load) return 0;
    return 2.0 * static_cast<double>(w.load->kv_used_tokens) +
           static_cast<double>(w.load->waiting_tokens) +
           static_cast<double>(w.load->kv_cached_tokens);
}

}  // namespace

std::vector<Victim> choose_victims(const std::vector<WorkerObservation>& workers, Role role,
                                   std::size_t count,
                                   const std::function<bool(const WorkerObservation&)>& avoid,
                                   const std::function<bool(const WorkerObservation&)>& stuck) {
    using Rank = std::tuple<int, double, std::string_view>;
    std::vector<std::pair<Rank, const WorkerObservation*>> candidates;
    std::size_t ready = 0;
    for (const WorkerObservation& w : workers) {
        if (w.role != role || w.state == WorkerState::kDraining) continue;
        ready += w.state == WorkerState::kReady;
        if (avoid(w)) continue;
        const int kind = stuck(w) ? 0 : w.state == WorkerState::kStarting ? 1 : 2;
        candidates.emplace_back(Rank{kind, loss(w), w.name}, &w);
    }
    std::ranges::sort(candidates, {}, [](const auto& c) { return c.first; });
    std::vector<Victim> out;
    for (const auto& [rank, w] : candidates) {
        if (out.size() == count) break;
        Victim v;
        v.worker = w;
        if (std::get<0>(rank) == 0) {
            v.because = "it does not become ready";
        } else if (std::get<0>(rank) == 1) {
            v.because = "it is still starting and has nothing to lose";
        } else if (!w->load) {
            v.because = "nothing is known of its load";
        } else {
            v.because = fmt::format(
                "least is lost: {} requests, {} tokens in use and {} cached, of {} workers",
                w->load->running + w->load->waiting, w->load->kv_used_tokens,
                w->load->kv_cached_tokens, ready);
        }
        out.push_back(std::move(v));
    }
    return out;
}

}  // namespace stator::planner
