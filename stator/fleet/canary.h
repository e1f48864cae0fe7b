#pragma once

#include <memory>

#include "stator/protocol/generate.h"
#include "stator/protocol/worker_info.h"

namespace stator::fleet {

/// The least that shows whether an engine makes steps, of what the worker's roles compute: a token,
/// a prompt of two tokens, or a small dark picture to encode. What a leg leaves is to be released.
[[nodiscard]] std::shared_ptr<protocol::GenerateRequest> canary_request(
    const protocol::WorkerInfo& worker);

/// Whether the event says that the engine has done it. A refusal says nothing of the engine.
[[nodiscard]] bool is_back(const protocol::StepEvent& event);

}  // namespace stator::fleet
