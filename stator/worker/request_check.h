#pragma once

#include <vector>

#include "stator/base/error.h"
#include "stator/engine/engine.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/worker_info.h"

namespace stator::worker {

/// What a frontend promises to have checked (protocol::SamplingParams) and an engine relies on,
/// looked at again: whoever knows the port can write to it. kInvalidArgument names the field. Sizes
/// and token ids are the engine's to refuse.
[[nodiscard]] Result<void> check_request(const protocol::GenerateRequest& request,
                                         const engine::EngineInfo& engine);

/// kUnsupported where no role of this worker computes the leg, or where it hands off and there is
/// no way to: no transfer plane, and no engine that moves its KV itself. A decode leg does without
/// one: it computes the prompt itself.
[[nodiscard]] Result<void> check_leg(protocol::Leg leg, const std::vector<protocol::Role>& roles,
                                     bool can_hand_off);

}  // namespace stator::worker
