#include "stator/frontend/prepared_request.h"

#include <utility>

#include "stator/engine/engine.h"
#include "stator/frontend/chat_request.h"
#include "stator/frontend/completion_request.h"
#include "stator/frontend/field_reader.h"
#include "stator/frontend/prompt.h"

namespace stator::frontend {
namespace {

constexpr std::uint32_t kCompletionDefaultTokens = 16;  // OpenAI's

Result<void> add_prompt(PreparedRequest& out, Result<std::vector<tokens::TokenId>> tokens,
                        std::optional<std::uint32_t> default_tokens, std::string_view param) {
    if (!tokens) return tl::unexpected<Error>(std::move(tokens.error()));
    auto most =
        fit_context(tokens->size(), out.fields, default_tokens, out.entry->context_tokens(), param);
    if (!most) return tl::unexpected<Error>(std::move(most.error()));
    out.prompts.push_back({std::move(*tokens), *most});
    return {};
}

/// The text alone must fit, and an item is at least one token.
Result<void> add_prompt_with_media(PreparedRequest& out, EncodedChat chat) {
    auto most = fit_context(chat.tokens.size() + chat.media.size(), out.fields, std::nullopt,
                            out.entry->context_tokens(), "messages");
    if (!most) return tl::unexpected<Error>(std::move(most.error()));
    out.prompts.push_back({std::move(chat.tokens), *most, std::move(chat.media)});
    return {};
}

/// What a chat becomes: the prompt and whether it ends inside the model's thinking.
Result<EncodedChat> encode(ChatRequest& request, const ModelEntry& entry, std::int64_t unix_seconds,
                           const std::atomic<bool>* abandoned) {
    auto& given = request.fields.hints.prompt_tokens;
    if (given.empty()) return encode_chat(request, entry, unix_seconds, abandoned);
    if (!request.media.empty()) {
        return param_error("nvext.token_data",
                           "nvext.token_data can't be given beside messages with media");
    }
    const bool in_reasoning = ends_in_reasoning(given, entry.model);
    return EncodedChat{std::move(given), {}, in_reasoning};
}

/// A call that is forced goes before a format that was asked for, and thinking before both.
void constrain(const OutputPlan& plan, GenerationFields& fields) {
    if (plan.constraint) {
        fields.constraint = plan.constraint;
        fields.constraint_field = "tool_choice";
    } else if (fields.constraint && plan.parser.begins_in_reasoning) {
        auto after = std::make_shared<protocol::OutputConstraint>(*fields.constraint);
        after->after = text::reasoning_end_mark(plan.parser.format.reasoning);
        fields.constraint = std::move(after);
    }
}

Result<void> prepare_chat(codec::JsonView body, const RequestRules& rules,
                          std::int64_t unix_seconds, const std::atomic<bool>* abandoned,
                          PreparedRequest& out) {
    auto request = read_chat_request(body, rules);
    if (!request) return tl::unexpected<Error>(std::move(request.error()));
    const bool given = !request->fields.hints.prompt_tokens.empty();
    auto chat = encode(*request, *out.entry, unix_seconds, abandoned);
    if (!chat) return tl::unexpected<Error>(std::move(chat.error()));
    auto plan = plan_output(*request, out.entry->model, chat->ends_in_reasoning);
    if (!plan) return tl::unexpected<Error>(std::move(plan.error()));
    out.output = std::move(*plan);
    const ChatMessage& last = request->messages.back();
    if (request->echo && last.role == "assistant") out.echo = last.content.value_or("");
    out.fields = std::move(request->fields);
    if (out.output) constrain(*out.output, out.fields);
    out.media = std::move(request->media);
    if (!out.media.empty()) return add_prompt_with_media(out, std::move(*chat));
    return add_prompt(out, std::move(chat->tokens), std::nullopt,
                      given ? "nvext.token_data" : "messages");
}

Result<void> prepare_completion(codec::JsonView body, const RequestRules& rules,
                                PreparedRequest& out) {
    auto request = read_completion_request(body, rules);
    if (!request) return tl::unexpected<Error>(std::move(request.error()));
    out.fields = std::move(request->fields);
    if (!out.fields.hints.prompt_tokens.empty()) {
        return add_prompt(out, std::move(out.fields.hints.prompt_tokens), kCompletionDefaultTokens,
                          "nvext.token_data");
    }
    for (PromptInput& prompt : request->prompts) {
        if (auto ok = add_prompt(out, encode_prompt(std::move(prompt), *out.entry),
                                 kCompletionDefaultTokens, "prompt");
            !ok) {
            return ok;
        }
    }
    return {};
}

}  // namespace

Result<void> add_media(PreparedRequest& request,
                       std::span<const std::vector<EncodedItem>> by_choice) {
    PreparedPrompt& prompt = request.prompts.front();
    for (const auto& items : by_choice) {
        for (std::size_t i = 0; i < items.size(); ++i) {
            if (auto ok = check_embeddings(items[i]); !ok) return ok;
            // Encoders of two kinds, in the middle of an upgrade.
            if (items[i].embeddings->pieces != by_choice[0][i].embeddings->pieces) {
                auto e = error(ErrorCode::kUnavailable,
                               "the encoders are being replaced; try again soon");
                e.value().retryable = true;
                return e;
            }
        }
    }
    auto most = fit_context(tokens_with_media(prompt.tokens.size(), by_choice[0]), request.fields,
                            std::nullopt, request.entry->context_tokens(), "messages");
    if (!most) return tl::unexpected<Error>(std::move(most.error()));
    prompt.max_tokens = *most;
    std::vector<tokens::TokenId> tokens;
    for (const auto& items : by_choice) {
        PromptWithMedia placed = place_media(prompt.tokens, prompt.places, items);
        prompt.media.push_back(std::move(placed.media));
        if (tokens.empty()) tokens = std::move(placed.tokens);
    }
    prompt.tokens = std::move(tokens);
    prompt.places.clear();
    return {};
}

void release_media(const PreparedRequest& request) {
    for (const PreparedPrompt& prompt : request.prompts) {
        for (const auto& items : prompt.media) {
            for (const protocol::MediaItem& item : items) {
                if (item.embeddings) request.entry->model.engine->release(item.embeddings);
            }
        }
    }
}

Result<PreparedRequest> prepare_request(Api api, std::string_view body,
                                        codec::JsonDocument& document, const ModelDirectory& models,
                                        std::uint32_t max_choices, std::int64_t unix_seconds,
                                        std::shared_ptr<const ModelEntry>* model_out,
                                        const std::atomic<bool>* abandoned) {
    if (body.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "the request has no body; send a JSON object with model and {}",
                     api == Api::kChat ? "messages" : "prompt");
    }
    auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(std::move(root.error()));
    if (root->type() != codec::JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "the body must be a JSON object, not {}",
                     describe(*root));
    }
    const auto name = read_model_field(*root);
    if (!name) return tl::unexpected<Error>(name.error());
    auto entry = models.require(*name);
    if (!entry) return tl::unexpected<Error>(std::move(entry.error()));
    if (model_out != nullptr) *model_out = *entry;

    PreparedRequest out;
    out.api = api;
    out.entry = *entry;
    out.adapter = out.entry->adapter_of(*name);
    const RequestRules rules = out.entry->rules(max_choices);
    auto done = api == Api::kChat ? prepare_chat(*root, rules, unix_seconds, abandoned, out)
                                  : prepare_completion(*root, rules, out);
    if (!done) return tl::unexpected<Error>(std::move(done.error()));
    return out;
}

}  // namespace stator::frontend
