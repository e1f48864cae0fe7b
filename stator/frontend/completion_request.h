#pragma once

#include <string>
#include <variant>
#include <vector>

#include "stator/base/error.h"
#include "stator/codec/json.h"
#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {

/// One prompt: text, or token ids taken as they are.
using PromptInput = std::variant<std::string, std::vector<tokens::TokenId>>;

/// A checked body of POST /v1/completions.
struct CompletionRequest {
    GenerationFields fields;
    std::vector<PromptInput> prompts;  ///< at least one, none empty; prompts × n <= max_choices
};

/// Reads and checks the body. `prompt` is a string, an array of strings, an array of token ids or
/// an array of such arrays. Errors are kInvalidArgument or kUnsupported, with the field in `param`.
[[nodiscard]] Result<CompletionRequest> read_completion_request(codec::JsonView body,
                                                                const RequestRules& rules);

}  // namespace stator::frontend
