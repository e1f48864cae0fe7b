#pragma once

#include <string_view>
#include <tl/expected.hpp>

#include "stator/config/problem.h"
#include "stator/config/yaml_tree.h"
#include "stator/engine/mock/step_time.h"

namespace stator::engine::mock {

/// A step time of one's own. One of these forms, and perhaps an encoder's:
///
///     form: linear
///     base_ms: 4.3
///     prefill_token_us: 16
///     prefill_context_ns: 0.2     # per prompt token and token before it
///     decode_sequence_us: 17
///     decode_context_ns: 24       # per decoding sequence and token of it
///     encoder: {image_ms: 8, token_us: 15}
///
///     form: constant              form: polynomial            form: table
///     step_ms: 10                 prefill_ms: [1, 0.02]       prefill_tokens: [1, 512, 8192]
///                                 decode_ms: [5, 0.00003]     prefill_ms: [5, 14, 160]
///                                                             decode_sequences: [1, 64]
///                                                             decode_context: [128, 8192]
///                                                             decode_ms: [5, 5.2, 6, 17]
///
/// All problems come with their lines.
[[nodiscard]] tl::expected<StepTime, config::Problems> read_step_time(std::string_view file,
                                                                      std::string_view text);
/// The same from a part of a larger document.
[[nodiscard]] StepTime read_step_time(const config::YamlTree& map, std::string_view file,
                                      config::Problems& problems);

}  // namespace stator::engine::mock
