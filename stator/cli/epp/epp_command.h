#pragma once

#include "stator/cli/commands.h"

namespace stator::cli {

/// `stator epp` itself, in the program stator-epp.
[[nodiscard]] ExitCode run_epp_here(const Invocation& invocation);

}  // namespace stator::cli
