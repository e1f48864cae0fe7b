#pragma once

#include <optional>
#include <string>
#include <vector>

#include "stator/config/load.h"

namespace stator::cli {

/// Loads the settings as every command sees them: the file named by `config_path` or else by
/// $STATOR_CONFIG, the environment, the flags. Prints every problem to standard error and gives
/// nothing where there is one; warnings are printed and do not matter.
[[nodiscard]] std::optional<config::Loaded> load_settings(std::string config_path,
                                                          std::vector<config::FlagValue> flags);

/// The variables of this process whose names begin with STATOR_.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> stator_environment();

}  // namespace stator::cli
