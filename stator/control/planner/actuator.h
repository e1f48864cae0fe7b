#pragma once

#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/planner/decision.h"
#include "stator/planner/observation.h"

namespace stator::control {

/// Carries out what a planner decides. One thread at a time.
class Actuator {
  public:
    virtual ~Actuator() = default;
    /// For messages: "the supervisor", "the webhook".
    [[nodiscard]] virtual std::string_view name() const = 0;
    /// Orders it; does not wait until it has taken effect, which is seen in the fleet. An error
    /// says why it will not be done.
    [[nodiscard]] virtual Result<void> carry_out(const planner::Action& action) = 0;
    /// Workers that it knows of, those of them too that the fleet has not seen yet.
    [[nodiscard]] virtual std::vector<planner::WorkerObservation> known() const { return {}; }
};

}  // namespace stator::control
