#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stator/planner/observation.h"
#include "stator/planner/options.h"

namespace stator::planner {

struct ReactiveStep {
    int change = 0;  ///< +1, -1 or 0
    std::string because;
};

/// The reference's load loop: what each ready worker's time to the first token and between tokens
/// will be, from its queue and its decoding sequences; one more if all are over a limit, one less
/// if all are below `sensitivity` of the limits and one worker fewer would still keep them. `isl`:
/// mean tokens of a prompt to be computed.
[[nodiscard]] ReactiveStep reactive_step(Role role, const std::vector<WorkerObservation>& workers,
                                         const RoleProfile& profile, const StepCost& cost,
                                         double isl, const ReactiveOptions& options);

}  // namespace stator::planner
