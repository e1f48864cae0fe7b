#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace stator::codec {

/// Whether `text` is well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, at most
/// U+10FFFF).
[[nodiscard]] bool utf8_valid(std::string_view text);

/// Length of the longest prefix of `text` that is well-formed: where it is not, the offset of the
/// first character that is malformed or cut short.
[[nodiscard]] std::size_t utf8_valid_prefix(std::string_view text);

/// Length of the longest prefix of `text` that can be passed on now: all of it, but for a tail of 1
/// to 3 bytes that may still become a well-formed character. Malformed bytes are not held back.
[[nodiscard]] std::size_t utf8_complete_prefix(std::string_view text);

/// Appends `text` to `out`, each maximal ill-formed part replaced by U+FFFD (the Unicode
/// Standard, 3.9, table 3-8).
void utf8_append_lossy(std::string& out, std::string_view text);

}  // namespace stator::codec
