#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "stator/frontend/field_reader.h"

namespace stator::frontend {

/// A call that the model made earlier.
struct ChatToolCall {
    std::string id;
    std::string name;
    std::string arguments;  ///< a JSON object as text

    bool operator==(const ChatToolCall&) const = default;
};

struct ChatMessage {
    std::string role;                    ///< system, developer, user, assistant or tool
    std::optional<std::string> content;  ///< none: null, which only an assistant's may be
    /// Where the client sent content as a list of texts: each of them. `content` has them joined by
    /// newlines.
    std::vector<std::string> parts;
    std::string name;          ///< empty = none
    std::string tool_call_id;  ///< of a tool's message
    std::vector<ChatToolCall> tool_calls;
    std::string reasoning;  ///< an assistant's thinking; empty = none

    bool operator==(const ChatMessage&) const = default;
};

/// Reads and checks `messages`; errors stay in `fields`, with paths such as
/// "messages[1].content[0].text".
void read_messages(FieldReader& fields, std::vector<ChatMessage>& out);

}  // namespace stator::frontend
