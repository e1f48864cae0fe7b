#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::frontend {

/// How an Error looks over HTTP in OpenAI's API. The strings have static storage; an empty `code`
/// is JSON's null.
struct HttpError {
    int status = 500;
    std::string_view type;
    std::string_view code;

    bool operator==(const HttpError&) const = default;
};

/// The one table from our errors to HTTP. Two codes have a meaning of their own here: kTooLarge is
/// a prompt that does not fit the model's context (bodies over their limit are refused below this
/// room), and kUnsupported without `param` is a route that is not served (501), with it a field
/// that is not (400).
[[nodiscard]] HttpError map_error(const Error& error);

/// The same for errors that only have a status: those found by the HTTP server itself.
[[nodiscard]] HttpError map_status(int status);

/// Appends {"error":{"message":…,"type":…,"param":…,"code":…}}.
void append_error_json(std::string& out, std::string_view message, const HttpError& http,
                       std::string_view param = {});
void append_error_json(std::string& out, const Error& error);

/// Value of Retry-After in seconds, at least 1, for the statuses that carry one (429, 503); 0 for
/// all others.
[[nodiscard]] std::uint32_t retry_after_seconds(const Error& error, int status);

}  // namespace stator::frontend
