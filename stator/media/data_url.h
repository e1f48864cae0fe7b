#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::media {

[[nodiscard]] bool is_data_url(std::string_view url);

/// The bytes of "data:…;base64,…". The type it claims is not looked at: what decides is the bytes.
/// kInvalidArgument: another form, or not strict base64; kTooLarge: over `max_bytes`, found before
/// anything is decoded.
[[nodiscard]] Result<std::string> read_data_url(std::string_view url, std::size_t max_bytes);

/// Base64 of RFC 4648, section 4, and nothing else: padded, no white space, no other alphabet, no
/// bits behind the end. Errors as above.
[[nodiscard]] Result<std::string> read_base64(std::string_view text, std::size_t max_bytes);

}  // namespace stator::media
