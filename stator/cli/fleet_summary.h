#pragma once

#include <cstdint>
#include <string>

#include "stator/cli/terminal.h"
#include "stator/protocol/worker_info.h"

namespace stator::cli {

/// What `stator frontend`, and `stator serve` with worker processes, print once a model is served.
[[nodiscard]] std::string fleet_summary(const std::string& program, const std::string& host,
                                        std::uint16_t port, bool api_keys,
                                        const protocol::ModelCard& card, const Style& style);

}  // namespace stator::cli
