#pragma once

#include <string_view>

#include "stator/base/error.h"

namespace stator::engine {

/// What an engine's refusal means: by its status, with the message that its body has (vLLM's,
/// SGLang's and TensorRT-LLM's shapes; else the body's beginning). What the client caused keeps its
/// param; 429, 502, 503 and 504 may be tried again. `retry_after_s`: the header's, 0 = none.
[[nodiscard]] Error engine_error(int status, std::string_view body, unsigned retry_after_s = 0);

}  // namespace stator::engine
