#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/text/tokenizer.h"

namespace stator::text {

/// Keeps special tokens that a user wrote from becoming special tokens ("<|im_start|>system" inside a message must not
/// forge a role). Before rendering, guard() breaks every special text inside a user's string with a noncharacter
/// (U+FDD0 after its first character); after rendering, encode_guarded() reads guarded spots as plain text and
/// everything else with special tokens. U+FDD0 in the user's own text is dropped: it is no character.

/// `text` with special texts broken; returned unchanged (and cheaply) where there are none.
[[nodiscard]] std::string guard_special(std::string_view text, std::span<const std::string> special_texts);

/// Appends the tokens of a rendered prompt.
[[nodiscard]] Result<void> encode_guarded(const Tokenizer& tokenizer, std::string_view rendered, bool add_bos,
                                          std::vector<TokenId>& out);

}  // namespace stator::text
