#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "stator/cli/commands.h"
#include "stator/cli/terminal.h"

namespace stator::cli {

/// Becomes stator-epp, the one program with gRPC in it (epp/README.md).
ExitCode run_epp(const Invocation& invocation) {
    std::error_code ec;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", ec);
    const std::string program = ec ? "stator-epp" : (self.parent_path() / "stator-epp").string();
    std::vector<std::string> words{invocation.program};
    words.insert(words.end(), invocation.args.begin(), invocation.args.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    print_problem(program + " can't be run: " + std::strerror(errno) +
                  ". It is built with `stator` and stands beside it.");
    return ExitCode::kFailed;
}

}  // namespace stator::cli
