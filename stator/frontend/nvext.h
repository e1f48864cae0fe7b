#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/frontend/field_reader.h"
#include "stator/tokens/token.h"

namespace stator::frontend {

struct RequestRules;

/// Bounds of what a request may say of its routing, in headers, body or to /router.
inline constexpr std::size_t kMaxHintBytes = 256;  ///< of one text
inline constexpr std::size_t kMaxHintLabels = 16;  ///< in a list
inline constexpr std::uint32_t kMaxHintRank = 65'535;
inline constexpr std::uint32_t kMaxHintOutput = 10'000'000;  ///< tokens

/// What a body says of routing and caching: the object `nvext` that NVIDIA Dynamo's clients send,
/// and vLLM's `cache_salt`.
struct BodyHints {
    std::string worker;  ///< nvext.backend_instance_id, .decode_worker_id; empty = none
    std::optional<std::uint32_t> rank;           ///< nvext.dp_rank
    std::string session;                         ///< nvext.session_control.session_id
    std::optional<std::int32_t> priority;        ///< nvext.agent_hints.strict_priority, .priority
    std::uint32_t expected_output_tokens = 0;    ///< nvext.agent_hints.osl; 0 = unknown
    std::string cache_salt;                      ///< cache_salt, nvext.cache_salt
    bool greedy = false;                         ///< nvext.greed_sampling
    std::vector<tokens::TokenId> prompt_tokens;  ///< nvext.token_data; empty = none
};

/// Reads them; errors stay in `fields`. Names of nvext that nobody knows are ignored, as is what
/// changes no answer (annotations, extra_fields, metadata_upload, speculative_prefill);
/// use_raw_prompt and max_thinking_tokens are kUnsupported.
void read_body_hints(FieldReader& fields, const RequestRules& rules, BodyHints& out);

}  // namespace stator::frontend
