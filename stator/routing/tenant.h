#pragma once

#include <cstdint>
#include <string_view>

#include "stator/tokens/hash.h"

namespace stator::routing {

/// A tenant as queue and index count it. 0: those without a name, who are one.
[[nodiscard]] inline std::uint64_t tenant_number(std::string_view name) {
    return name.empty() ? 0 : tokens::hash_seed({}, name);
}

}  // namespace stator::routing
