#include "stator/frontend/pools/traffic_shares.h"

#include <algorithm>

namespace stator::frontend {

std::vector<double> traffic_shares(std::span<const SharingPool> pools, const ShareRules& rules) {
    std::vector<double> shares(pools.size(), 0.0);
    if (pools.empty()) return shares;
    const bool any_ready =
        std::ranges::any_of(pools, [](const SharingPool& p) { return p.ready_ranks > 0; });
    const std::string& oldest = std::ranges::min(pools, {}, &SharingPool::opened).id;

    // The oldest pool gets what the others' percentages leave.
    double given_away = 0.0;
    for (std::size_t i = 0; i < pools.size(); ++i) {
        const SharingPool& pool = pools[i];
        if (any_ready && pool.ready_ranks == 0) continue;
        const auto own = rules.pool_percent.find(pool.id);
        if (own != rules.pool_percent.end()) {
            shares[i] = own->second;
        } else if (!rules.new_pool_percent) {
            shares[i] = static_cast<double>(std::max<std::size_t>(pool.ready_ranks, 1));
        } else if (pool.id != oldest) {
            shares[i] = *rules.new_pool_percent;
        } else {
            continue;
        }
        given_away += shares[i];
    }
    for (std::size_t i = 0; i < pools.size(); ++i) {
        const bool takes_rest = pools[i].id == oldest && rules.new_pool_percent &&
                                !rules.pool_percent.contains(oldest) &&
                                (!any_ready || pools[i].ready_ranks > 0);
        if (takes_rest) shares[i] = std::max(0.0, 100.0 - given_away);
    }
    // Rules that leave nothing for anybody who is there must not stop the traffic.
    if (std::ranges::all_of(shares, [](double s) { return s <= 0.0; })) {
        for (std::size_t i = 0; i < pools.size(); ++i) {
            if (!any_ready || pools[i].ready_ranks > 0) shares[i] = 1.0;
        }
    }
    return shares;
}

}  // namespace stator::frontend
