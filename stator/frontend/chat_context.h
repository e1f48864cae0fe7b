#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/frontend/chat_request.h"
#include "stator/text/parsers/output_parser.h"
#include "stator/text/special_guard.h"
#include "stator/text/template_traits.h"

namespace stator::frontend {

/// Stands behind the content of the last message where the answer goes on with it: what a template
/// writes behind it is cut off.
inline constexpr std::string_view kContinueMark = "\xEF\xB7\x91\xEF\xB7\x92";  // U+FDD1, U+FDD2

/// Where media items stand in a rendered prompt, if the template has no mark of its own: U+FDD3,
/// the item's number and U+FDD4. No client can write it: of a request with media U+FDD3 is dropped
/// from every text.
[[nodiscard]] std::string media_mark(std::uint32_t item);
inline constexpr std::string_view kMediaMarkBegin = "\xEF\xB7\x93";
inline constexpr std::string_view kMediaMarkEnd = "\xEF\xB7\x94";

/// How media items are put before the template.
enum class MediaStyle : std::uint8_t {
    kMarks,  ///< as texts that are media_mark()s
    kParts,  ///< as parts {"type":"image"}, for a template that knows them
};

struct ChatContext {
    std::string json;
    std::vector<std::string> texts;  ///< long contents, see ChatTemplate::render()
};

/// The variables a chat template sees, as Transformers names them: messages, tools, documents,
/// add_generation_prompt, reasoning_effort where it was given, and the client's
/// chat_template_kwargs. Messages are put as the template wants them: a developer is the system
/// where the template knows no such role; content is text or a list of parts; arguments are an
/// object or a string. Every string and key that came from the client is guarded against special
/// tokens.
[[nodiscard]] Result<ChatContext> chat_context(const ChatRequest& request,
                                               const text::SpecialGuard& guard,
                                               const text::TemplateTraits& traits,
                                               const text::OutputFormat& format,
                                               MediaStyle media = MediaStyle::kMarks);

}  // namespace stator::frontend
