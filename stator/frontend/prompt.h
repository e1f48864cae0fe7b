#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/frontend/chat_request.h"
#include "stator/frontend/completion_request.h"
#include "stator/frontend/model_directory.h"

namespace stator::frontend {

/// The variables a chat template sees: messages, add_generation_prompt (true), tools and documents
/// (null) and the client's chat_template_kwargs. Every string that came from the client is guarded
/// against special tokens.
[[nodiscard]] Result<std::string> chat_context_json(const ChatRequest& request,
                                                    const text::SpecialGuard& guard);

/// Messages to tokens by the model's template, which may show the time. kInvalidArgument: no
/// template, or the template refused the messages; kTooLarge: certainly more tokens than the
/// context, found before tokenising.
[[nodiscard]] Result<std::vector<tokens::TokenId>> encode_chat(const ChatRequest& request,
                                                               const ModelEntry& entry,
                                                               std::int64_t unix_seconds);

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
