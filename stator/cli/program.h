#pragma once

namespace stator::cli {

/// The whole program: picks the subcommand by the first word and runs it. Returns the exit code.
/// Raises the limit of open files to what the system allows and ignores SIGPIPE.
[[nodiscard]] int run_program(int argc, char** argv);

}  // namespace stator::cli
