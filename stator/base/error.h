#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace stator {

/// What kind of thing went wrong. The names and meanings follow gRPC's status codes, so that one
/// table maps them to HTTP (stator/frontend) and another to gRPC. Never reorder: the numbers travel
/// between processes.
enum class ErrorCode : std::uint8_t {
    kInvalidArgument = 1,  ///< the request is wrong and would be wrong on every server
    kUnauthenticated,      ///< no key, or a key nobody issued
    kPermissionDenied,     ///< a valid key that may not do this
    kNotFound,             ///< no such model, route or file
    kMethodNotAllowed,     ///< the route exists, the HTTP method does not
    kTooLarge,             ///< over a limit that is stated in the message
    kUnsupported,          ///< well formed, but this build or engine can't do it
    kOverloaded,           ///< a bound is reached; try again after `retry_after_ms`
    kUnavailable,          ///< the part that would serve this is gone or not ready yet
    kDeadlineExceeded,     ///< the time given ran out
    kCancelled,            ///< the caller left
    kAborted,              ///< lost a race; the same call may succeed at once
    kDataLoss,             ///< bytes are there and wrong: digest, checksum, truncated file
    kExhausted,            ///< a resource of this process ran out (memory, descriptors, KV cells)
    kInternal,             ///< a bug of ours
    kUnknown,
};

/// The code's name in lower case with underscores, e.g. "invalid_argument". Static storage.
std::string_view to_string(ErrorCode code);

/// An error as a value. `message` is one sentence for the person who caused it: what was wrong,
/// with which value, and what would be right. `param` names the request field where there is one
/// (OpenAI's `error.param`).
struct Error {
    ErrorCode code = ErrorCode::kUnknown;
    std::string message;
    std::string param;
    bool retryable = false;
    std::uint32_t retry_after_ms = 0;  ///< hint, 0 = none
    std::source_location where = std::source_location::current();
};

/// The outcome of anything that can fail on the data path. Control path (start-up, configuration)
/// may throw instead.
template <typename T>
using Result = tl::expected<T, Error>;

/// `return error(ErrorCode::kNotFound, "model {} is not served here", name);` works for every
/// Result<T>.
struct ErrorFormat {
    std::string_view text;
    std::source_location where;
    // NOLINTNEXTLINE(google-explicit-constructor): must convert to catch the caller's location
    constexpr ErrorFormat(const char* t, std::source_location w = std::source_location::current())
        : text(t), where(w) {}
};

template <typename... Args>
[[nodiscard]] tl::unexpected<Error> error(ErrorCode code, ErrorFormat format, Args&&... args) {
    Error e;
    e.code = code;
    e.message = fmt::format(fmt::runtime(format.text), std::forward<Args>(args)...);
    e.where = format.where;
    return tl::unexpected<Error>(std::move(e));
}

/// The same with the request field that was wrong.
template <typename... Args>
[[nodiscard]] tl::unexpected<Error> param_error(std::string_view param, ErrorFormat format,
                                                Args&&... args) {
    auto e = error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
    e.value().param = param;
    return e;
}

}  // namespace stator
