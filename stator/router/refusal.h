#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "stator/base/error.h"
#include "stator/router/route.h"

// Inside of the room.
namespace stator::router {

[[nodiscard]] inline double seconds(Nanos t) { return static_cast<double>(t.count()) * 1e-9; }

/// For which another time may be better.
[[nodiscard]] inline Error refusal(ErrorCode code, std::string message) {
    constexpr std::uint32_t kRetryAfterMs = 1'000;
    Error e;
    e.code = code;
    e.message = std::move(message);
    e.retryable = true;
    e.retry_after_ms = kRetryAfterMs;
    return e;
}

}  // namespace stator::router
