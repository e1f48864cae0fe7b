#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "stator/cli/handoff_probe.h"

namespace stator::cli {

/// Handoffs of one size by one way.
struct TransferFigures {
    std::string method;  ///< "memcpy": a copy within one process, for comparison
    std::uint64_t bytes = 0;
    std::size_t handoffs = 0;
    double gb_per_second = 0;       ///< by the median of the claims; 0: nothing is moved
    double gb_per_second_read = 0;  ///< by the median of claim and one look at every byte
    double claim_ms = 0;            ///< median
    double arrive_p50_ms = 0;
    double arrive_p99_ms = 0;
    double first_claim_ms = 0;
    double cpu_consumer_s = 0;  ///< per handoff
    double cpu_producer_s = 0;
    std::uint64_t resident_consumer_bytes = 0;
    std::uint64_t resident_producer_bytes = 0;
    bool operator==(const TransferFigures&) const = default;
};

/// `samples` has at least one; `producer_cpu_s` is what the other side used for all of them.
[[nodiscard]] TransferFigures figures_of(const std::string& method, std::uint64_t bytes,
                                         const HandoffSample& first,
                                         const std::vector<HandoffSample>& samples,
                                         double producer_cpu_s);
/// Copies within this process, as often as handoffs are measured but for a second at most.
[[nodiscard]] TransferFigures measure_memcpy(std::uint64_t bytes, std::uint32_t times);

struct TransferResults {
    std::string other;  ///< who the handoffs came from
    bool checksums = true;
    bool complete = true;
    std::vector<TransferFigures> rows;
    std::map<std::string, std::string> off;  ///< ways that do not work between the two, and why
};
[[nodiscard]] std::string to_table(const TransferResults& results);
[[nodiscard]] std::string to_json(const TransferResults& results);

/// "64 MiB", "1,000 bytes".
[[nodiscard]] std::string size_text(std::uint64_t bytes);

}  // namespace stator::cli
