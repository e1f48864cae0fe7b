#pragma once

#include <string_view>

namespace stator::model {

/// Some models list the marks of their turns as ordinary added tokens, like <think>, which texts
/// may hold legitimately. Those written as marks are kept from users all the same.
[[nodiscard]] inline bool looks_like_mark(std::string_view text) {
    return text.starts_with("<|") || text.ends_with("|>") || text.starts_with("<｜") ||
           text.ends_with("_of_turn>") || text == "[INST]" || text == "[/INST]";
}

}  // namespace stator::model
