#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::cli {

/// What a process has used.
struct ProcessCost {
    double cpu_seconds = 0;  ///< user and system, all threads
    std::uint64_t resident_bytes = 0;
};
[[nodiscard]] ProcessCost own_cost();

/// What `stator bench transfer --listen` says of itself with each handoff, as its shape.
struct HandoffFacts {
    /// CPU from publishing to the next request for memory, of all handoffs before this one.
    double cpu_seconds = 0;
    std::uint64_t resident_bytes = 0;
    std::uint8_t fill = 0;                       ///< every byte of this one
    std::map<std::string, std::string> why_off;  ///< ways that do not work there
};
[[nodiscard]] std::string to_json(const HandoffFacts& facts);
/// kDataLoss: it is not of this form.
[[nodiscard]] Result<HandoffFacts> read_handoff_facts(std::string_view json);

}  // namespace stator::cli
