#pragma once

#include "stator/engine/mock/core.h"
#include "stator/estimate/time_model.h"

namespace stator::sim {

/// What a router would be told of engines of this kind before it has seen one: the formulas of
/// `estimate` through a few points of the step time, at speed 1.
[[nodiscard]] estimate::PrefillTime prefill_prior(const engine::mock::CoreOptions& options);
[[nodiscard]] estimate::DecodeStepTime step_prior(const engine::mock::CoreOptions& options);

}  // namespace stator::sim
