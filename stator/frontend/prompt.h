#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/frontend/chat_request.h"
#include "stator/frontend/completion_request.h"
#include "stator/frontend/media_prompt.h"
#include "stator/frontend/model_directory.h"

namespace stator::frontend {

/// A chat as its model gets it.
struct EncodedChat {
    std::vector<tokens::TokenId> tokens;  ///< of the text alone
    std::vector<MediaPlace> media;        ///< where the items stand between them, each once
    bool ends_in_reasoning = false;       ///< the prompt ends inside the model's thinking
};

/// Messages to tokens by the model's template, which may show the time. kInvalidArgument: no
/// template, or the template refused the messages; kTooLarge: certainly more tokens than the
/// context, found before tokenising; kCancelled: `abandoned` (may be null) became true.
[[nodiscard]] Result<EncodedChat> encode_chat(const ChatRequest& request, const ModelEntry& entry,
                                              std::int64_t unix_seconds,
                                              const std::atomic<bool>* abandoned);

/// The same of a prompt that the client gave as tokens: what its end says.
[[nodiscard]] bool ends_in_reasoning(std::span<const tokens::TokenId> prompt,
                                     const ServedModel& model);

/// A completion's prompt to tokens. Text is read with special tokens and BOS: who writes it may
/// give token ids as well, so there is nothing to forge. Token ids are taken as they are.
[[nodiscard]] Result<std::vector<tokens::TokenId>> encode_prompt(PromptInput input,
                                                                 const ModelEntry& entry);

/// How many tokens may be generated after a prompt. `default_tokens`: where the request does not
/// say; nullopt = the rest of the context. kTooLarge with both numbers where it does not fit.
[[nodiscard]] Result<std::uint32_t> fit_context(std::size_t prompt_tokens,
                                                const GenerationFields& fields,
                                                std::optional<std::uint32_t> default_tokens,
                                                std::uint32_t context_tokens,
                                                std::string_view prompt_param);

}  // namespace stator::frontend
