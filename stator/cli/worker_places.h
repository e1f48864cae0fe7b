#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/link_security.h"
#include "stator/config/settings.h"
#include "stator/worker/worker.h"

namespace stator::cli {

/// The options of every worker of this process: names, addresses, labels, keys.
[[nodiscard]] Result<std::vector<worker::WorkerOptions>> worker_options(
    const config::Settings& settings, const std::shared_ptr<LinkSecurity>& security);

/// An address for worker `number` of `count`: "%i" is its number, "%p" the process; a TCP port
/// that is given counts up from worker 0. kInvalidArgument, naming `flag`, where several workers
/// would have the same one. Ports 0 and * stay: everybody takes a free one.
[[nodiscard]] Result<std::string> numbered(const std::string& flag, std::string address,
                                           std::uint32_t number, std::uint32_t count);

}  // namespace stator::cli
