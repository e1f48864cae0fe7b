#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/terminal.h"
#include "stator/config/load.h"
#include "stator/net/socket_address.h"

namespace stator::cli {

/// What `stator bench transfer` was asked for.
struct BenchTransferOptions {
    enum class Mode : std::uint8_t {
        kLocal = 1,  ///< two processes here
        kListen,     ///< make handoffs for who connects
        kConnect,    ///< take handoffs from who listens
    };
    Mode mode = Mode::kLocal;
    std::optional<net::SocketAddress> address;  ///< not kLocal: where to listen or to connect
    std::vector<std::uint64_t> sizes{1ULL << 20, 64ULL << 20};
    std::uint32_t handoffs = 100;
    std::string json;  ///< a file, "-" for standard output; empty: none
    std::string config_path;
    std::vector<config::FlagValue> flags;  ///< of the configuration
};

inline constexpr std::uint64_t kLargestHandoff = 1ULL << 36;
inline constexpr std::uint32_t kMostHandoffs = 100'000;
inline constexpr std::size_t kMostSizes = 16;

/// `args` are the words behind "transfer". None: help was asked for. kInvalidArgument with a
/// sentence for the terminal. `supervised`: a `stator bench transfer` has started this process with
/// its own words and --listen; what does not belong to that side is passed over.
[[nodiscard]] Result<std::optional<BenchTransferOptions>> parse_bench_transfer_options(
    const std::vector<std::string>& args, bool supervised);

[[nodiscard]] std::string bench_transfer_help(const Style& style);

}  // namespace stator::cli
