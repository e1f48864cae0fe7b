#pragma once

#include <span>

#include "stator/base/error.h"
#include "stator/planner/profile.h"

namespace stator::planner {

/// One prompt alone: seconds until its first token.
struct PromptPoint {
    double tokens = 0;
    double seconds = 0;
};

/// So many sequences at a time, with short prompts: seconds between two tokens of one.
struct DecodePoint {
    double running = 0;
    double seconds = 0;
};

/// The cost of steps, from what was measured from outside, by least squares: a token of a prompt
/// from how the time to the first one grows with its length, a step and a sequence in it from how
/// the time between tokens grows with their number. Slopes are at least 0. kInvalidArgument: fewer
/// than two different lengths, no decode point, or figures that are not positive and finite.
[[nodiscard]] Result<StepCost> fit_step_cost(std::span<const PromptPoint> prompts,
                                             std::span<const DecodePoint> decodes);

}  // namespace stator::planner
