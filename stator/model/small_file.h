#pragma once

#include <cstdint>
#include <string>

#include "stator/base/error.h"

namespace stator::model {

/// A whole regular file (links are followed: downloads are often kept so). kNotFound,
/// kPermissionDenied, kInvalidArgument (a folder, a pipe, a device), kTooLarge over `max_bytes`,
/// kDataLoss. Room-internal.
[[nodiscard]] Result<std::string> read_small_file(const std::string& path, std::uint64_t max_bytes);

}  // namespace stator::model
