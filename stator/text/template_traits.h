#pragma once

#include "stator/text/chat_template.h"

namespace stator::text {

/// What a template can do with the messages it gets, found by rendering small ones: a look at its
/// source would have to understand Jinja.
struct TemplateTraits {
    bool text_content = true;   ///< puts out message.content where it is a string
    bool part_content = false;  ///< … where it is a list of {"type":"text","text":…}
    bool null_content = true;   ///< takes null beside tool calls, and writes nothing for it
    /// Knows the role "developer": treats it unlike a role that it has never heard of.
    bool developer_role = false;
    /// Wants a call's arguments as JSON in a string and not as an object.
    bool string_arguments = false;
    /// Refuses ids of calls that are not 9 letters and digits, as Mistral's templates do.
    bool short_call_ids = false;
    bool operator==(const TemplateTraits&) const = default;
};

/// About ten renderings of a few short messages. Never fails: a template that refuses everything
/// has the traits that it would have by default.
[[nodiscard]] TemplateTraits find_template_traits(const ChatTemplate& chat_template);

}  // namespace stator::text
