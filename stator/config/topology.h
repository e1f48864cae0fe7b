#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "stator/config/options.h"
#include "stator/config/problem.h"

namespace stator::config {

/// Workers of one kind that `stator serve --topology FILE` keeps running.
struct TopologyWorker {
    std::string name;  ///< "small"; the processes are small-0, small-1, …
    std::uint32_t count = 1;
    std::vector<std::pair<const Option*, std::string>> options;  ///< checked, as text
    std::vector<std::pair<std::string, std::string>> environment;
};

/// The text of a topology that has a name: "pd", "epd"; none where it is no such name.
[[nodiscard]] std::optional<std::string_view> named_topology(std::string_view name);

/// The whole file:
///
///     workers:
///       - name: small
///         count: 2
///         options:                  # as in a configuration file
///           model: {path: small.gguf}
///           engine: {max_running: 8}
///         environment: {CUDA_VISIBLE_DEVICES: "0"}
///
/// All problems with their lines. Names are words of letters, digits, dashes and underscores, no
/// two alike; at most 1024 processes together.
[[nodiscard]] tl::expected<std::vector<TopologyWorker>, Problems> read_topology(
    std::string_view name, std::string_view text);

}  // namespace stator::config
