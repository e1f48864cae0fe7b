#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/base/strong.h"
#include "stator/protocol/handoff.h"
#include "stator/tokens/token.h"

namespace stator::protocol {

using tokens::TokenId;

/// Names one generation within the process that submits it; never reused.
using RequestId = Strong<std::uint64_t, struct RequestIdTag>;

/// How the next token is drawn. Ranges are checked at the door (stator/frontend); an engine may
/// rely on them.
struct SamplingParams {
    float temperature = 1.0F;         ///< [0, 2]; 0 = greedy (highest logit, lowest id on a tie)
    float top_p = 1.0F;               ///< (0, 1]
    std::int32_t top_k = 0;           ///< 0 = off
    float min_p = 0.0F;               ///< [0, 1)
    float frequency_penalty = 0.0F;   ///< [-2, 2], OpenAI's definition, over generated tokens
    float presence_penalty = 0.0F;    ///< [-2, 2]
    float repetition_penalty = 1.0F;  ///< (0, 2], over prompt and generated tokens
    std::optional<std::uint64_t>
        seed;  ///< the same seed, prompt and engine build give the same tokens
    std::vector<std::pair<TokenId, float>>
        logit_bias;  ///< added to the logits before anything else

    bool operator==(const SamplingParams&) const = default;
};

/// What a trusted caller may say of where a request goes. For the router; never sent to a worker.
struct RouteHints {
    std::string session;                ///< requests of one session prefer one worker; empty = none
    bool session_hard = false;          ///< … and take no other while that one can take requests
    std::string worker;                 ///< by name: this one and no other; empty = any
    std::optional<std::uint32_t> rank;  ///< of `worker`
    bool advised = false;               ///< `worker` is advice: where that one can't take it, any
    std::vector<std::string> required_labels;   ///< "zone=a": only workers that bear all of them
    std::vector<std::string> preferred_labels;  ///< rather workers that bear these
    std::vector<std::string> tolerated_taints;
    std::uint32_t expected_output_tokens = 0;  ///< 0 = unknown
    bool explain = false;
    /// Where `explain` is set: a JSON object that says why the rank was chosen, written by
    /// Engine::submit() before it returns.
    std::string explanation;
};

/// What the generated text must look like.
struct OutputConstraint {
    enum class Kind : std::uint8_t {
        kJsonObject = 1,  ///< any JSON object; `text` is empty
        kJsonSchema,      ///< a JSON value valid under the schema `text`
        kRegex,           ///< all of the text matches `text`
        kChoice,          ///< one of the strings of the JSON array `text`
        kLark,            ///< a grammar in llguidance's Lark
    };
    Kind kind = Kind::kJsonObject;
    std::string text;
    /// Not empty: the output may think first, freely, up to and with this text ("</think>"); what
    /// follows is constrained.
    std::string after;

    bool operator==(const OutputConstraint&) const = default;
};

/// Longest OutputConstraint::text and ::after that parts take from each other.
inline constexpr std::size_t kMaxConstraintBytes = 256 * 1024;
inline constexpr std::size_t kMaxAfterBytes = 256;

/// One sequence to generate. `n` choices are n requests: the engine's prefix cache makes them share
/// the prompt.
struct GenerateRequest {
    RequestId id;
    std::vector<TokenId> prompt;  ///< at least one token
    SamplingParams sampling;
    std::uint32_t max_tokens = 16;  ///< at least 1; prompt + max_tokens fits the engine's context
    std::uint32_t min_tokens = 0;   ///< end-of-generation tokens are masked before this many
    bool ignore_eos = false;
    std::vector<TokenId> stop_token_ids;  ///< end the sequence like end-of-generation does
    std::int32_t top_logprobs = -1;       ///< -1: none; 0: the chosen token's; k: and the k best
    std::uint64_t cache_salt = 0;         ///< prefixes are shared only among equal salts
    /// The last so many tokens of `prompt` are output of this very request, generated elsewhere
    /// before that worker was lost: they count as generated for penalties and for the random
    /// numbers, and not for usage. max_tokens and min_tokens are what is left. At most prompt - 1.
    std::uint32_t resumed_tokens = 0;
    std::int32_t priority = 0;  ///< higher goes first where an engine can do so
    std::string tenant;         ///< for fairness and accounting; empty = none
    std::string traceparent;    ///< W3C trace context; empty = none
    Deadline deadline;
    std::shared_ptr<RouteHints> hints;                   ///< null: none
    std::shared_ptr<const OutputConstraint> constraint;  ///< null: none
    Leg leg = Leg::kWhole;
    /// kDecode: the prefill leg's; its KV covers prompt - 1 tokens.
    std::shared_ptr<const Handoff> handoff = nullptr;
    /// The same where it has arrived: at the engine of a decode leg. Null there: what was to come
    /// did not, and the engine computes the prompt itself.
    std::shared_ptr<const HandoffBytes> kv = nullptr;
    /// By position. kEncode: the one item to encode, and the prompt is empty.
    std::vector<MediaItem> media = {};
    /// LoRA adapter, one of ModelCard::adapters; empty: the model itself. Prefixes are shared among
    /// equal ones only.
    std::string adapter = {};
};

enum class FinishReason : std::uint8_t {
    kStop = 1,   ///< end-of-generation or a stop token
    kLength,     ///< max_tokens or the context's end
    kCancelled,  ///< cancel() or a deadline
    kError,      ///< see StepEvent::error
    kHandoff,    ///< a prefill or encode leg is done: see StepEvent::handoff
};
std::string_view to_string(FinishReason reason);

struct TokenLogprob {
    TokenId token = 0;
    float logprob =
        0.0F;  ///< natural log of the probability under the unmodified distribution (temperature 1)
};

/// One generated token. Its k best alternatives are StepBatch::top[top_first .. top_first +
/// top_count).
struct TokenOutput {
    TokenId token = 0;
    float logprob = 0.0F;  ///< meaningful only where the request asked for logprobs
    std::uint32_t top_first = 0;
    std::uint32_t top_count = 0;
};

/// What one engine step did for one request: tokens[first .. first + count) of the batch, and
/// perhaps the end.
struct StepEvent {
    RequestId id;
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    std::optional<FinishReason>
        finish;  ///< set on a request's last event, which is its last mention anywhere
    /// Set with the first token and at the end. 0 there: what was cached is not known (with the
    /// first token: not yet).
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;  ///< prompt tokens whose KV was not computed again
    std::optional<Error> error;       ///< with kError
    std::shared_ptr<const Handoff> handoff = nullptr;  ///< with kHandoff
};

/// A leg that has ended with a handoff before its prompt was computed (Handoff::early), which has
/// failed since: whoever waits for its KV waits in vain.
struct LostHandoff {
    RequestId id;
    Error why;
};

/// Everything one engine step produced for one receiver: flat, so that a step is three allocations,
/// not three a token. An end-of-generation token is delivered as a token too, with finish = kStop,
/// unless it was masked.
struct StepBatch {
    std::vector<StepEvent> events;
    std::vector<TokenOutput> tokens;
    std::vector<TokenLogprob> top;
    std::vector<LostHandoff> lost_handoffs = {};  ///< behind the events

    void clear() {
        events.clear();
        tokens.clear();
        top.clear();
        lost_handoffs.clear();
    }
};

}  // namespace stator::protocol
