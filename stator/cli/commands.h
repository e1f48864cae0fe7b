#pragma once

#include <string>
#include <vector>

#include "stator/cli/exit_code.h"

namespace stator::cli {

/// What a subcommand gets: the words after its name, and how the program was called ("./stator"),
/// for texts to paste.
struct Invocation {
    std::string program;
    std::vector<std::string> args;
};

/// The subcommands, one source each. They print their own messages.
[[nodiscard]] ExitCode run_serve(const Invocation& invocation);
[[nodiscard]] ExitCode run_frontend(const Invocation& invocation);
[[nodiscard]] ExitCode run_router(const Invocation& invocation);
[[nodiscard]] ExitCode run_planner(const Invocation& invocation);
[[nodiscard]] ExitCode run_worker(const Invocation& invocation);
[[nodiscard]] ExitCode run_epp(const Invocation& invocation);
[[nodiscard]] ExitCode run_events(const Invocation& invocation);
[[nodiscard]] ExitCode run_chat(const Invocation& invocation);
[[nodiscard]] ExitCode run_bench(const Invocation& invocation);
/// `stator bench transfer`; `args` are the words behind that.
[[nodiscard]] ExitCode run_bench_transfer(const Invocation& invocation);
[[nodiscard]] ExitCode run_sim(const Invocation& invocation);
[[nodiscard]] ExitCode run_config(const Invocation& invocation);
[[nodiscard]] ExitCode run_version(const Invocation& invocation);

}  // namespace stator::cli
