#pragma once

#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/events/publisher.h"

namespace stator::cli {

/// A key file as `stator events keygen` prints it: lines "public KEY" and "secret KEY", 40
/// characters of Z85 each; lines that begin with # are comments. kInvalidArgument names the line.
[[nodiscard]] Result<events::CurveKeys> read_curve_keys(const std::string& path);
[[nodiscard]] std::string format_curve_keys(const events::CurveKeys& keys);

/// Public keys, one a line.
[[nodiscard]] Result<std::vector<std::string>> read_allowed_curve_keys(const std::string& path);

}  // namespace stator::cli
