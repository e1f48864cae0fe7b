#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::cli {

/// A whole small file. `what` begins the messages: "The API key file". kNotFound and
/// kPermissionDenied with the system's reason, kInvalidArgument for a folder, kTooLarge over
/// `max_bytes`. Pipes and devices are read too, so that
/// --config /dev/stdin works.
[[nodiscard]] Result<std::string> read_text_file(std::string_view what, const std::string& path,
                                                 std::size_t max_bytes);

/// The first line of a file that holds a key; empty where `path` is. `flag` begins the messages.
[[nodiscard]] Result<std::string> read_key_line(std::string_view flag, const std::string& path);

/// Writes a file so that a reader sees all of it or none: a new file beside it takes its place.
/// kUnavailable with the system's reason.
[[nodiscard]] Result<void> write_file_at_once(std::string_view what, const std::string& path,
                                              std::string_view content);

}  // namespace stator::cli
