#include "stator/cli/command_settings.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/cli/command_line.h"
#include "stator/cli/settings_source.h"

namespace stator::cli {

tl::expected<config::Settings, ExitCode> command_settings(const std::string& command,
                                                          const Invocation& invocation,
                                                          std::string (*help)(const Style&)) {
    CommandLine line(command);
    std::string config_path;
    std::vector<config::FlagValue> flags;
    line.add_value("--config", config_path);
    line.add_options(flags);
    const auto outcome = line.parse(invocation.args);
    if (!outcome) {
        print_problem(outcome.error());
        return tl::unexpected(ExitCode::kUsage);
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(help(style_of(STDOUT_FILENO)));
        return tl::unexpected(ExitCode::kDone);
    }
    auto loaded = load_settings(config_path, std::move(flags));
    if (!loaded) return tl::unexpected(ExitCode::kUsage);
    set_log(loaded->settings.log.level, loaded->settings.log.format);
    return std::move(loaded->settings);
}

}  // namespace stator::cli
