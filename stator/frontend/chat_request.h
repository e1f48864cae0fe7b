#pragma once

#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/codec/json.h"
#include "stator/frontend/sampling_fields.h"

namespace stator::frontend {

struct ChatMessage {
    std::string role;                    ///< system, developer, user, assistant or tool
    std::optional<std::string> content;  ///< none: null, which only an assistant's may be
    std::string name;                    ///< empty = none
    std::string tool_call_id;            ///< empty = none
    std::string tool_calls_json;         ///< an array as the client sent it; empty = none

    bool operator==(const ChatMessage&) const = default;
};

/// A checked body of POST /v1/chat/completions.
struct ChatRequest {
    GenerationFields fields;
    std::vector<ChatMessage> messages;  ///< at least one
    std::string template_kwargs_json;   ///< chat_template_kwargs, an object; empty = none

    /// Bytes of all contents: a lower bound of the prompt's text.
    [[nodiscard]] std::size_t text_bytes() const;
};

/// Reads and checks the body. Errors are kInvalidArgument or kUnsupported, with the field in
/// `param`. Content given as an array of text parts is joined by newlines.
[[nodiscard]] Result<ChatRequest> read_chat_request(codec::JsonView body,
                                                    const RequestRules& rules);

}  // namespace stator::frontend
