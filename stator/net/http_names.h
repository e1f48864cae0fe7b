#pragma once

#include <string_view>

namespace stator::net {

/// Are two header names (or other ASCII words of HTTP) the same but for case?
[[nodiscard]] bool same_name(std::string_view a, std::string_view b);

/// Is this an HTTP token (method, header name): letters, digits and some signs, not empty?
[[nodiscard]] bool is_token(std::string_view text);

/// Is this a Host header's value (or a URL's authority): a name or address with an optional port?
[[nodiscard]] bool is_valid_host(std::string_view host);

}  // namespace stator::net
