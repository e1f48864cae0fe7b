#include "stator/cli/program.h"

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/terminal.h"
#include "stator/config/suggest.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

struct Command {
    CommandSummary summary;
    ExitCode (*run)(const Invocation&);
};

constexpr std::array<Command, 12> kCommands{{
    {{"serve", "run a model behind an OpenAI-compatible HTTP API"}, run_serve},
    {{"frontend", "only the HTTP door, in front of workers that it finds"}, run_frontend},
    {{"worker", "only a model, for frontends to find"}, run_worker},
    {{"router", "where requests should go, for those who send them themselves"}, run_router},
    {{"epp", "picks pods for a Gateway API gateway: an endpoint picker (GAIE)"}, run_epp},
    {{"planner", "how many workers there should be; explains what was decided"}, run_planner},
    {{"events", "watch what a fleet's workers publish; make keys"}, run_events},
    {{"chat", "talk to a running server from the terminal"}, run_chat},
    {{"bench", "load for any OpenAI-compatible server, and what came of it"}, run_bench},
    {{"sim", "a whole fleet on virtual time, from a scenario file"}, run_sim},
    {{"config", "every option, its value and where that comes from; check a file"}, run_config},
    {{"version", "version, commit and compiler of this program"}, run_version},
}};

std::string overview_text(int descriptor) {
    std::vector<CommandSummary> summaries;
    for (const Command& c : kCommands) summaries.push_back(c.summary);
    return overview(summaries, style_of(descriptor));
}

/// One descriptor per connection: the usual soft limit of 1024 is far below --max-connections.
void raise_open_file_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    // Failure leaves the old limit, which works too.
    static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
}

ExitCode unknown_command(const std::string& word) {
    std::vector<std::string_view> names;
    for (const Command& c : kCommands) names.push_back(c.summary.name);
    print_problem("There is no command " + config::in_quotes(word) + "." +
                  config::did_you_mean(word, names));
    print_err("\n" + overview_text(STDERR_FILENO));
    return ExitCode::kUsage;
}

ExitCode dispatch(const Invocation& given) {
    Invocation invocation = given;
    if (invocation.args.empty()) {
        print_out(overview_text(STDOUT_FILENO));
        return ExitCode::kDone;
    }
    const std::string word = invocation.args.front();
    invocation.args.erase(invocation.args.begin());
    if (word == "-h" || word == "--help" || word == "help") {
        print_out(overview_text(STDOUT_FILENO));
        return ExitCode::kDone;
    }
    if (word == "-V" || word == "--version") return run_version(invocation);
    for (const Command& c : kCommands) {
        if (c.summary.name == word) return c.run(invocation);
    }
    return unknown_command(word);
}

}  // namespace

int run_program(int argc, char** argv) { return run_as(argc, argv, dispatch); }

int run_as(int argc, char** argv, ExitCode (*run)(const Invocation&)) {
    std::signal(SIGPIPE, SIG_IGN);
    raise_open_file_limit();
    Invocation invocation;
    invocation.program = argc > 0 ? argv[0] : "stator";
    for (int i = 1; i < argc; ++i) invocation.args.emplace_back(argv[i]);
    ExitCode code = ExitCode::kFailed;
    try {
        code = run(invocation);
    } catch (const std::bad_alloc&) {
        print_problem("There is not enough memory.");
    } catch (const std::exception& e) {
        print_problem(std::string("This should not have happened: ") + e.what());
    }
    return static_cast<int>(code);
}

}  // namespace stator::cli
