#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::cli {

struct ApiKeys {
    std::vector<std::string> keys;      ///< at least one, no two alike
    std::vector<std::string> warnings;  ///< sentences; none contains a key
};

/// The keys in a text: one a line; blank lines and lines that begin with # are ignored, blanks
/// around a key too. kInvalidArgument where there is none, or where one could not be sent in a
/// header (with the line, never the key).
[[nodiscard]] Result<ApiKeys> parse_api_keys(std::string_view text);

/// The same from a file; also warns where the file can be read by everyone on the machine.
[[nodiscard]] Result<ApiKeys> read_api_keys(const std::string& path);

}  // namespace stator::cli
