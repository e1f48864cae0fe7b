#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/codec/json.h"
#include "stator/frontend/field_reader.h"
#include "stator/frontend/frontend.h"
#include "stator/frontend/nvext.h"
#include "stator/protocol/generate.h"

namespace stator::frontend {

/// What the model and the server allow in a request.
struct RequestRules {
    std::string_view model = {};  ///< its id, for errors; lives as long as its entry
    SamplingDefaults defaults;
    std::uint32_t max_choices = 128;
    std::uint32_t max_top_logprobs = 20;  ///< what the engine can give
    std::uint32_t vocab_size = 0;         ///< token ids in requests lie below it; 0 = unknown
    bool structured_output = false;       ///< the engine can hold its output to a constraint
    bool images = false;                  ///< messages may have images
    bool videos = false;
};

/// Bounds that no option moves.
inline constexpr std::size_t kMaxStopStrings = 16;
inline constexpr std::size_t kMaxStopBytes = 1024;  ///< of one stop string
inline constexpr std::size_t kMaxStopTokens = 128;
inline constexpr std::size_t kMaxLogitBias = 4096;
inline constexpr std::uint32_t kMaxTopLogprobs = 20;  ///< OpenAI's

/// The part of a request that chat and text completions share, checked.
struct GenerationFields {
    std::string model;  ///< as the client wrote it
    protocol::SamplingParams sampling;
    std::optional<std::uint32_t> max_tokens;
    std::string_view max_tokens_field = "max_tokens";  ///< the field it came from
    std::uint32_t min_tokens = 0;
    bool ignore_eos = false;
    std::vector<std::string> stop;
    std::vector<tokens::TokenId> stop_token_ids;
    std::uint32_t n = 1;
    std::int32_t top_logprobs = -1;  ///< as GenerateRequest::top_logprobs
    bool stream = false;
    bool include_usage = false;     ///< a last event with usage
    bool continuous_usage = false;  ///< usage so far in every event
    bool return_token_ids = false;
    std::shared_ptr<const protocol::OutputConstraint> constraint;  ///< null: none
    std::string constraint_field;  ///< where the client wrote it, for errors
    BodyHints hints;
};

/// The `model` field: required, a non-empty string.
[[nodiscard]] Result<std::string> read_model_field(codec::JsonView request);

/// Reads all of it but `max_tokens`' relatives and `logprobs`, which differ between the two APIs.
/// Errors stay in `fields`. Fields nobody knows are ignored, as OpenAI-compatible servers do; known
/// ones that would change the result and are not served are errors (kUnsupported).
void read_shared_fields(FieldReader& fields, const RequestRules& rules, GenerationFields& out);

/// A field that is accepted only where it changes nothing: absent, null, false, "", 0, [] and {}
/// pass.
void refuse_unless_empty(FieldReader& fields, std::string_view name, std::string_view hint);

/// A token id inside an array: `where` names it in the error, e.g. "prompt[3]".
[[nodiscard]] Result<tokens::TokenId> read_token_id(codec::JsonView value, std::string_view param,
                                                    std::string_view where,
                                                    const RequestRules& rules);

}  // namespace stator::frontend
