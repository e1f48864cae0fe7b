#pragma once

#include <functional>
#include <string>
#include <vector>

#include "stator/planner/observation.h"

namespace stator::planner {

struct Victim {
    const WorkerObservation* worker = nullptr;
    std::string because;  ///< "3 requests and 12000 cached tokens, the least of 8"
};

/// Who should go first of a role's workers: those that are stuck, then those that are still
/// starting, then those with the least work and cache that would be lost. At most `count`; fewer
/// where `avoid` leaves no more. The pointers are into `workers`.
[[nodiscard]] std::vector<Victim> choose_victims(
    const std::vector<WorkerObservation>& workers, Role role, std::size_t count,
    const std::function<bool(const WorkerObservation&)>& avoid,
    const std::function<bool(const WorkerObservation&)>& stuck);

}  // namespace stator::planner
