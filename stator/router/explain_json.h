#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "stator/router/router.h"

namespace stator::router {

/// A decision for people: what was predicted for the best `most` ranks, in milliseconds, and why
/// others were out of the question.
///
///     {"policy":"expected-ttft","prompt_tokens":8000,"chosen":"gpu-3/0","predicted_ttft_ms":41.2,
///      "uncertainty_ms":4.0,"ranks":200,"excluded":{"full":3},
///      "candidates":[{"rank":"gpu-3/0","cost":0.05,"predicted_ttft_ms":41.2,"queue_ms":0,
///                     "prefill_ms":41.2,…,"cached_tokens":6400},…]}
[[nodiscard]] std::string to_json(const Explanation& explanation, const RankTable& ranks,
                                  std::size_t most = 8);

}  // namespace stator::router
