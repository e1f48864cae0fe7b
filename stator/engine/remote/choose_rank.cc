#include "stator/engine/remote/choose_rank.h"

#include <algorithm>
#include <limits>

namespace stator::engine {

std::optional<Choice> choose_rank(std::span<const std::shared_ptr<fleet::Worker>> ready,
                                  std::span<const std::uint64_t> tried, std::uint64_t tie) {
    const fleet::Worker* best = nullptr;
    std::size_t best_index = 0;
    std::uint32_t best_rank = 0;
    double least = std::numeric_limits<double>::infinity();
    // Begins at another one each time: among equals the first one met is taken.
    const std::size_t start = ready.empty() ? 0 : (tie >> 32U) % ready.size();
    for (std::size_t i = 0; i < ready.size(); ++i) {
        const std::size_t index = start + i < ready.size() ? start + i : start + i - ready.size();
        const fleet::Worker& worker = *ready[index];
        // The view may be older than the worker's state.
        if (worker.state() != fleet::MemberState::kReady) continue;
        if (std::ranges::find(tried, worker.id()) != tried.end()) continue;
        const std::size_t ranks = worker.rank_count();
        for (std::uint32_t rank = 0; rank < ranks; ++rank) {
            const protocol::LoadReport load = worker.load(rank);
            const std::uint64_t held = std::uint64_t{load.running} + load.waiting;
            const std::uint64_t limit = std::uint64_t{load.running_limit} + load.waiting_limit;
            if (held >= limit) continue;
            const double share =
                static_cast<double>(held) / std::max<std::uint32_t>(load.running_limit, 1);
            if (share >= least) continue;
            least = share;
            best = &worker;
            best_index = index;
            best_rank = rank;
        }
    }
    if (best == nullptr) return std::nullopt;
    ready[best_index]->reserve(best_rank, 1);
    return Choice{ready[best_index], best_rank};
}

}  // namespace stator::engine
