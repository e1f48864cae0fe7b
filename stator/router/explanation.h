#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/router/policy.h"
#include "stator/router/route.h"

namespace stator::router {

/// Everything about one decision, for people: all ranks that could take it, taken or
/// not. One that could compute the prompt alone, or all, is there twice.
struct Explanation {
    struct Entry {
        std::string worker;         ///< the rank's stable name
        std::string decode_worker;  ///< of a pair; empty = none
        Candidate candidate;
        std::string excluded;  ///< why it is no candidate: "taint gpu=old"; empty = it is one
    };
    Policy policy = Policy::kExpectedTtft;
    std::uint32_t prompt_tokens = 0;
    std::optional<Entry> chosen;  ///< none: refused
    double ttft_std_s = 0;
    bool by_session = false;
    /// Engines keep KV that the index does not follow: cached tokens are at most so many.
    bool upper_bound = false;
    // Where it could be split: what each of the two ways would be at best.
    Disaggregation disaggregation = Disaggregation::kConditional;
    std::optional<Entry> whole;
    std::optional<Entry> split;
    std::vector<std::string> fallbacks;
    std::optional<Error> refused;
    std::vector<Entry> ranks;  ///< best first, then those excluded
};

/// As JSON: names in words with their units, so that it can be read without this source. Of the
/// ranks the first `most_ranks`; "ranks_left_out" says how many more there are.
[[nodiscard]] std::string to_json(const Explanation& explanation, std::size_t most_ranks = 64);

}  // namespace stator::router
