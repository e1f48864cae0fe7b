#pragma once

#include <sys/random.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "stator/base/check.h"

namespace stator::transfer {

/// Bytes that nobody can guess: handoffs' ids, nonces.
template <std::size_t n>
[[nodiscard]] std::array<std::uint8_t, n> random_bytes() {
    static_assert(n <= 256, "getrandom() gives so many without being interrupted");
    std::array<std::uint8_t, n> out{};
    STATOR_CHECK(::getrandom(out.data(), n, 0) == static_cast<ssize_t>(n),
                 "the system has random bytes");
    return out;
}

}  // namespace stator::transfer
