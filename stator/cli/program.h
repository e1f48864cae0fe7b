#pragma once

#include "stator/cli/commands.h"

namespace stator::cli {

/// The whole program: picks the subcommand by the first word and runs it. Returns the exit code.
/// Raises the limit of open files to what the system allows and ignores SIGPIPE.
[[nodiscard]] int run_program(int argc, char** argv);
/// The same for a program that is one subcommand.
[[nodiscard]] int run_as(int argc, char** argv, ExitCode (*run)(const Invocation&));

}  // namespace stator::cli
