#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/codec/json.h"
#include "stator/frontend/media_prompt.h"
#include "stator/frontend/model_directory.h"
#include "stator/frontend/output_plan.h"
#include "stator/frontend/sampling_fields.h"
#include "stator/media/loader.h"

namespace stator::frontend {

enum class Api : std::uint8_t { kChat, kCompletion };

/// One prompt, ready for the engine.
struct PreparedPrompt {
    std::vector<tokens::TokenId> tokens;
    std::uint32_t max_tokens = 0;
    /// Of a request whose media are yet to be read and encoded: where they will stand. Then tokens
    /// and max_tokens are those of the text alone.
    std::vector<MediaPlace> places = {};
    /// By choice: the items at their positions in `tokens`, with embeddings of each choice's own.
    std::vector<std::vector<protocol::MediaItem>> media = {};
};

/// A request that can be submitted: every check that needs no engine is done.
struct PreparedRequest {
    Api api = Api::kChat;
    std::shared_ptr<const ModelEntry> entry;
    GenerationFields fields;
    std::vector<PreparedPrompt>
        prompts;  ///< one for chat; choice i of prompt p has index p × n + i
    std::vector<media::MediaSource> media;  ///< yet to be read, by MediaPlace::item
    /// What is looked for in the output; null: it is text and nothing else.
    std::shared_ptr<const OutputPlan> output;
    std::string echo;  ///< text of the client's that the answer begins with
    std::shared_ptr<protocol::RouteHints> hints;  ///< of headers and body; null: none
    std::int32_t priority = 0;
    std::string tenant;            ///< of the key or the headers; empty: none
    std::uint64_t cache_salt = 0;  ///< 0 = none
    std::string adapter;           ///< LoRA adapter; empty: none
};

/// A request body to what the engine needs: JSON, fields, template, tokens. Pure computing, on any
/// thread; slow for long prompts. `document` is a buffer to parse in, `unix_seconds` the time that
/// chat templates may show. Once the model is known `model_out` has its entry, errors or not. Stops
/// between its steps, with kCancelled, once `abandoned` is true.
[[nodiscard]] Result<PreparedRequest> prepare_request(
    Api api, std::string_view body, codec::JsonDocument& document, const ModelDirectory& models,
    std::uint32_t max_choices, std::int64_t unix_seconds,
    std::shared_ptr<const ModelEntry>* model_out = nullptr,
    const std::atomic<bool>* abandoned = nullptr);

/// Puts encoded items, by choice and by MediaPlace::item, into the request's one prompt, and checks
/// the context again. kTooLarge where it does not fit; kInternal, kUnavailable (retryable) where
/// what encoders gave makes no sense, or differs between choices.
[[nodiscard]] Result<void> add_media(PreparedRequest& request,
                                     std::span<const std::vector<EncodedItem>> by_choice);

/// Tells the model's engine that the embeddings that the request still has will not be claimed.
void release_media(const PreparedRequest& request);

}  // namespace stator::frontend
