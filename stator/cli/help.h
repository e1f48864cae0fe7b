#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "stator/cli/terminal.h"

namespace stator::cli {

/// A subcommand as the overview shows it.
struct CommandSummary {
    std::string_view name;
    std::string_view does;  ///< half a sentence
};

/// What `stator` alone prints.
[[nodiscard]] std::string overview(const std::vector<CommandSummary>& commands, const Style& style);

/// What the subcommands print for --help.
[[nodiscard]] std::string serve_help(const Style& style);
[[nodiscard]] std::string frontend_help(const Style& style);
[[nodiscard]] std::string router_help(const Style& style);
[[nodiscard]] std::string epp_help(const Style& style);
[[nodiscard]] std::string planner_help(const Style& style);
[[nodiscard]] std::string worker_help(const Style& style);
[[nodiscard]] std::string events_help(const Style& style);
[[nodiscard]] std::string chat_help(const Style& style);
[[nodiscard]] std::string sim_help(const Style& style);
[[nodiscard]] std::string config_help(const Style& style);
[[nodiscard]] std::string version_help(const Style& style);

/// "  --port NUMBER        Port to listen on. (default: 8000)", wrapped to 100 columns. A line that
/// names two columns.
[[nodiscard]] std::string help_entry(std::string_view left, std::string_view right);

}  // namespace stator::cli
