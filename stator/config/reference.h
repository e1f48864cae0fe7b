#pragma once

#include <string>

#include "stator/config/options.h"

namespace stator::config {

/// The default as people write it: "8000", "30s"; "none" for an empty text or list,
/// Option::unset_means for an unset value.
[[nodiscard]] std::string default_text(const Option& option);

/// What may be given, for people: "0 to 65535", "text, json", "true, false"; empty where anything
/// may.
[[nodiscard]] std::string choices_text(const Option& option);

/// docs/configuration.md: how options are given and a table of all of them.
[[nodiscard]] std::string markdown_reference();

}  // namespace stator::config
