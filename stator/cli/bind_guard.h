#pragma once

#include <string_view>

#include "stator/base/error.h"

namespace stator::cli {

/// Whether an address to listen on can be reached from this machine alone: 127.0.0.0/8, ::1 (also
/// in brackets, also as an IPv4-mapped address) and "localhost". Any other name counts as
/// reachable, whatever it resolves to today.
[[nodiscard]] bool is_loopback(std::string_view host);

/// Refuses to offer the server beyond this machine without API keys, unless that was asked for.
/// kInvalidArgument names both ways out.
[[nodiscard]] Result<void> check_bind(std::string_view host, bool has_api_keys,
                                      bool allow_unauthenticated);

}  // namespace stator::cli
