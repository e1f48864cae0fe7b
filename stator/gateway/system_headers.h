#pragma once

#include <string_view>

namespace stator::gateway {

/// Whether a request header (lower case) says where a request goes, or who did a part of it: such
/// ones are for pickers and gateways to set, and what a client sends under their names goes no
/// further.
[[nodiscard]] bool is_system_header(std::string_view name);

}  // namespace stator::gateway
