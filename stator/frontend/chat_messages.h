#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/frontend/field_reader.h"
#include "stator/frontend/sampling_fields.h"
#include "stator/media/loader.h"

namespace stator::frontend {

/// A call that the model made earlier.
struct ChatToolCall {
    std::string id;
    std::string name;
    std::string arguments;  ///< a JSON object as text

    bool operator==(const ChatToolCall&) const = default;
};

/// A part of a content that the client sent as a list: text, or a media item.
struct ChatPart {
    std::string text = {};                    ///< of a media item empty
    std::optional<std::uint32_t> media = {};  ///< which of the request's items stands here
    bool operator==(const ChatPart&) const = default;
};

struct ChatMessage {
    std::string role;                    ///< system, developer, user, assistant or tool
    std::optional<std::string> content;  ///< none: null, which only an assistant's may be
    /// Where the client sent content as a list: its parts, in order. `content` has their texts
    /// joined by newlines.
    std::vector<ChatPart> parts;
    std::string name;          ///< empty = none
    std::string tool_call_id;  ///< of a tool's message
    std::vector<ChatToolCall> tool_calls;
    std::string reasoning;  ///< an assistant's thinking; empty = none

    bool operator==(const ChatMessage&) const = default;

    [[nodiscard]] bool has_media() const;
};

/// Reads and checks `messages`; errors stay in `fields`, with paths such as
/// "messages[1].content[0].text". Media items are only noted, in `media`, not read: image_url as
/// OpenAI's chats have it, input_image as its responses have it, image as Anthropic's messages have
/// it, video_url as vLLM has it.
void read_messages(FieldReader& fields, const RequestRules& rules, std::vector<ChatMessage>& out,
                   std::vector<media::MediaSource>& media);

}  // namespace stator::frontend
