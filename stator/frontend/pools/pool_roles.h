#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "stator/fleet/fleet.h"
#include "stator/protocol/worker_info.h"

namespace stator::frontend {

/// What the workers of a pool do in the lives of its requests, by what they say of themselves.

inline constexpr std::array kRoles{protocol::Role::kAggregated, protocol::Role::kPrefill,
                                   protocol::Role::kDecode, protocol::Role::kEncode};

/// In the order of kRoles; a worker that names none is aggregated.
[[nodiscard]] std::vector<protocol::Role> roles_of(const protocol::WorkerInfo& info);

/// Whether its ranks generate: requests end there, and it can compute whole ones.
[[nodiscard]] bool answers(const protocol::WorkerInfo& info);

struct RoleCount {
    protocol::Role role = protocol::Role::kAggregated;
    std::uint64_t workers = 0;  ///< in any state but gone; one with several roles counts in each
    std::uint64_t ready = 0;
    std::uint64_t ready_ranks = 0;
};
/// Of the roles that somebody has there.
[[nodiscard]] std::vector<RoleCount> count_roles(const fleet::FleetView& view,
                                                 const fleet::PoolView& pool);

/// Where workers are ready and none of them generates: which role is missing, a part of a sentence
/// ("no decode worker is ready: …"). Empty: that is not so.
[[nodiscard]] std::string why_nobody_answers(const fleet::PoolView& pool);

/// The pools of which that is so, a sentence each: for /health.
[[nodiscard]] std::vector<std::string> pools_without_answer(const fleet::FleetView& view);

}  // namespace stator::frontend
