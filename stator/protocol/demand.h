#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stator::protocol {

/// How often a duration was in which range, since a start. Readers take differences.
struct DurationTotals {
    std::vector<double> bounds;         ///< seconds, strictly ascending; the last range is open
    std::vector<std::uint64_t> counts;  ///< bounds.size() + 1: of each range alone
    double sum_s = 0.0;
    bool operator==(const DurationTotals&) const = default;
};

/// What a frontend was asked for of one model since its start, and how it went. Readers take
/// differences. Demand is what was offered: the refused are counted, what a client sends again
/// after a refusal is not.
struct DemandTotals {
    /// Its own name, not an alias; empty: of requests refused before they were read.
    std::string model;
    std::uint64_t offered = 0;        ///< sequences asked for: requests × choices
    std::uint64_t refused = 0;        ///< of them, answered with 429 or 503
    std::uint64_t prompt_tokens = 0;  ///< of all offered
    std::uint64_t media_items = 0;    ///< images and videos of all offered
    std::uint64_t started_prompt_tokens = 0;
    std::uint64_t cached_tokens = 0;  ///< of started_prompt_tokens, found in a prefix cache
    std::uint64_t finished = 0;       ///< sequences that ended as they should
    std::uint64_t output_tokens = 0;  ///< of all sequences, finished or not
    DurationTotals ttft;              ///< a request's first byte to its first token
    DurationTotals itl;               ///< mean time between the tokens of a sequence
    bool operator==(const DemandTotals&) const = default;
};

}  // namespace stator::protocol
