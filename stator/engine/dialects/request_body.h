#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"

namespace stator::engine {

enum class Dialect : std::uint8_t { kVllmGenerate, kVllmCompletions, kSglang, kTrtllm };

struct DialectOptions {
    Dialect dialect = Dialect::kVllmCompletions;
    std::string model;  ///< a name that the engine serves
    /// vLLM before 0.12 has `guided_*` instead of `structured_outputs`.
    bool guided_fields = false;
    /// The engine was started with a policy that heeds priorities.
    bool priorities = false;
    /// Of several in one SGLang: the one to take it. Others are told in a header.
    std::optional<std::uint32_t> rank = {};
};

/// The path of the engine's route.
[[nodiscard]] std::string_view path_of(Dialect dialect);

/// Appends the body that asks the engine for a whole request, streamed. `name` becomes the engine's
/// own id of it, where it takes one. kUnsupported, with what the engine can't do: log
/// probabilities or a constraint of a kind that its dialect has no words for. Salts go as the
/// decimal text of their number, which is what the engine's KV events then show.
///
/// Nothing of a client's own words reaches an engine but through fields of GenerateRequest: no
/// transfer parameters, with which a client could stop an engine (a vLLM decode worker dies of a
/// wrong one).
[[nodiscard]] Result<void> append_request_body(std::string& out,
                                               const protocol::GenerateRequest& request,
                                               const DialectOptions& options,
                                               std::string_view name);

}  // namespace stator::engine
