#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/config/options.h"

namespace stator::config {

/// Reads one value as people write it, checked against the option's range and choices. A list is
/// split at commas. kInvalidArgument says which value, and what would be right. Surrounding blanks
/// do not matter.
[[nodiscard]] Result<Value> parse_value(const Option& option, std::string_view text);

/// The value as parse_value() would read it again: "30s", "32M", "info", "a,b"; for an unset value
/// option.unset_means.
[[nodiscard]] std::string format_value(const Option& option, const Value& value);

/// Option::min or max as the option's values are written.
[[nodiscard]] std::string format_bound(const Option& option, double bound);

/// What would be right for the option, to follow "must be": "a whole number from 0 to 65535".
[[nodiscard]] std::string expectation(const Option& option);

/// `text` in double quotes, control characters escaped, cut after `max_bytes`: for messages.
[[nodiscard]] std::string in_quotes(std::string_view text, std::size_t max_bytes = 60);

/// The same for a file's path, whose end is what tells files apart.
[[nodiscard]] inline std::string path_in_quotes(std::string_view path) {
    constexpr std::size_t kLongestPath = 4096;
    return in_quotes(path, kLongestPath);
}

}  // namespace stator::config
