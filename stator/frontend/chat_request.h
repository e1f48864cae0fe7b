#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/codec/json.h"
#include "stator/frontend/chat_messages.h"
#include "stator/frontend/sampling_fields.h"
#include "stator/frontend/tool_fields.h"

namespace stator::frontend {

/// A checked body of POST /v1/chat/completions.
struct ChatRequest {
    GenerationFields fields;
    std::vector<ChatMessage> messages;      ///< at least one
    std::vector<media::MediaSource> media;  ///< items of the messages, in order
    ToolUse tool_use;
    std::string template_kwargs_json;  ///< chat_template_kwargs, an object; empty = none
    std::string documents_json;        ///< an array of objects; empty = none
    std::string reasoning_effort;      ///< empty: not said
    bool add_generation_prompt = true;
    bool continue_final_message = false;  ///< the answer goes on where the last message ends
    bool include_reasoning = true;        ///< thinking is part of the answer
    bool echo = false;  ///< the answer begins with the last message where that is the assistant's

    /// Bytes of all contents: a lower bound of the prompt's text.
    [[nodiscard]] std::size_t text_bytes() const;
};

/// Reads and checks the body. Errors are kInvalidArgument or kUnsupported, with the field's path in
/// `param`: "messages[2].tool_calls[0].function.arguments".
[[nodiscard]] Result<ChatRequest> read_chat_request(codec::JsonView body,
                                                    const RequestRules& rules);

}  // namespace stator::frontend
