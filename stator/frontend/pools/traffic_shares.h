#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace stator::frontend {

/// How the traffic of one model name is divided among its pools during a rolling upgrade.
struct ShareRules {
    /// Percent for every pool but the oldest of a name; unset: in proportion to the ready ranks.
    std::optional<double> new_pool_percent;
    std::map<std::string, double> pool_percent;  ///< by pool id; wins over the above
};

/// One pool of a name.
struct SharingPool {
    std::string id;
    std::uint64_t opened = 0;  ///< a later pool has a higher number
    std::size_t ready_ranks = 0;
};

/// Relative weights, in the order of `pools`, of those that serve one model name. A pool without a
/// ready rank weighs nothing as long as another one has one.
[[nodiscard]] std::vector<double> traffic_shares(std::span<const SharingPool> pools,
                                                 const ShareRules& rules);

}  // namespace stator::frontend
