#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/error.h"

namespace stator::cli {

struct ApiKeys {
    std::vector<std::string> keys;     ///< no two alike
    std::vector<std::string> tenants;  ///< of each key; where none is named, "key-N", its place
    std::vector<bool> trusted;         ///< of each key: routing hints that come with it count
    std::vector<std::pair<std::string, double>> weights;  ///< of tenants
    std::vector<std::string> warnings;                    ///< sentences; none contains a key
};

/// The keys in a text: one a line, perhaps followed by tenant=NAME, weight=NUMBER and hints=yes;
/// blank lines and lines that begin with # are ignored, blanks around a key too. kInvalidArgument
/// where there is none, or where one could not be sent in a header (with the line, never the key).
[[nodiscard]] Result<ApiKeys> parse_api_keys(std::string_view text);

/// The same from a file; also warns where the file can be read by everyone on the machine.
[[nodiscard]] Result<ApiKeys> read_api_keys(const std::string& path);

/// A tenant's weight: a number from 0.001 to 1000.
[[nodiscard]] std::optional<double> read_tenant_weight(std::string_view text);

}  // namespace stator::cli
