#pragma once

#include "stator/base/error.h"
#include "stator/engine/engine.h"
#include "stator/protocol/generate.h"

namespace stator::worker {

/// What a frontend promises to have checked (protocol::SamplingParams) and an engine relies on,
/// looked at again: whoever knows the port can write to it. kInvalidArgument names the field. Sizes
/// and token ids are the engine's to refuse.
[[nodiscard]] Result<void> check_request(const protocol::GenerateRequest& request,
                                         const engine::EngineInfo& engine);

}  // namespace stator::worker
