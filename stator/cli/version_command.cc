#include <fmt/format.h>
#include <unistd.h>

#include <string>

#include "stator/base/version.h"
#include "stator/cli/command_line.h"
#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/terminal.h"
#include "stator/codec/json_writer.h"

namespace stator::cli {

ExitCode run_version(const Invocation& invocation) {
    CommandLine line("stator version");
    bool json = false;
    line.add_switch("--json", json);
    const auto outcome = line.parse(invocation.args);
    if (!outcome) {
        print_problem(outcome.error());
        return ExitCode::kUsage;
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(version_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
#ifdef NDEBUG
    constexpr std::string_view kBuild = "release";
#else
    constexpr std::string_view kBuild = "with asserts";
#endif
    constexpr std::string_view kCompiler = "clang " __clang_version__;
    std::string out;
    if (json) {
        codec::JsonWriter w(out);
        w.begin_object().key("version").string(version()).key("commit").string(commit());
        w.key("compiler").string(kCompiler).key("build").string(kBuild).end_object();
        out += '\n';
    } else {
        out = fmt::format("stator {}\ncommit    {}\ncompiler  {}\nbuild     {}\n", version(),
                          commit(), kCompiler, kBuild);
    }
    print_out(out);
    return ExitCode::kDone;
}

}  // namespace stator::cli
