#pragma once

#include <string>
#include <tl/expected.hpp>

#include "stator/cli/commands.h"
#include "stator/cli/terminal.h"
#include "stator/config/settings.h"

namespace stator::cli {

/// What the commands that run something begin with: read flags, show help, load the settings, set
/// up the log. No settings: the command is over, with this exit code.
[[nodiscard]] tl::expected<config::Settings, ExitCode> command_settings(
    const std::string& command, const Invocation& invocation, std::string (*help)(const Style&));

}  // namespace stator::cli
