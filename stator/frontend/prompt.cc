#include "stator/frontend/prompt.h"

#include <algorithm>
#include <utility>

#include "stator/codec/json_writer.h"
#include "stator/text/special_guard.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using codec::JsonWriter;
using tokens::TokenId;

void append_guarded(JsonWriter& w, std::string_view text, const text::SpecialGuard& guard) {
    w.string(guard.guard(text));
}

/// A client's JSON value again, with its strings and keys guarded. Depth is bounded by the parser.
void append_guarded_json(JsonWriter& w, JsonView value, const text::SpecialGuard& guard) {
    if (const auto text = value.as_string()) return append_guarded(w, *text, guard);
    switch (value.type()) {
        case JsonType::kArray:
            w.begin_array();
            value.each_element([&](std::size_t, JsonView v) {
                append_guarded_json(w, v, guard);
                return true;
            });
            w.end_array();
            return;
        case JsonType::kObject:
            w.begin_object();
            value.each_member([&](std::string_view key, JsonView v) {
                w.key(guard.guard(key));
                append_guarded_json(w, v, guard);
                return true;
            });
            w.end_object();
            return;
        case JsonType::kNull:
        case JsonType::kBool:
        case JsonType::kInt:
        case JsonType::kUint:
        case JsonType::kDouble:
        case JsonType::kString:
            break;
    }
    std::string plain;
    value.write_to(plain);
    w.raw(plain);
}

Result<void> append_message(JsonWriter& w, const ChatMessage& m, const text::SpecialGuard& guard) {
    w.begin_object().key("role").string(m.role).key("content");
    if (m.content) {
        append_guarded(w, *m.content, guard);
    } else {
        w.null();
    }
    if (!m.name.empty()) append_guarded(w.key("name"), m.name, guard);
    if (!m.tool_call_id.empty()) append_guarded(w.key("tool_call_id"), m.tool_call_id, guard);
    if (!m.tool_calls_json.empty()) {
        codec::JsonDocument document;
        auto calls = document.parse(m.tool_calls_json);
        if (!calls) return tl::unexpected<Error>(std::move(calls.error()));
        append_guarded_json(w.key("tool_calls"), *calls, guard);
    }
    w.end_object();
    return {};
}

Result<void> append_kwargs(JsonWriter& w, const std::string& json,
                           const text::SpecialGuard& guard) {
    codec::JsonDocument document;
    auto kwargs = document.parse(json);
    if (!kwargs) return tl::unexpected<Error>(std::move(kwargs.error()));
    Result<void> status;
    kwargs->each_member([&](std::string_view key, JsonView value) {
        if (key == "messages" || key == "add_generation_prompt" || key == "tools" ||
            key == "documents" || key == "bos_token" || key == "eos_token") {
            status = param_error("chat_template_kwargs",
                                 "chat_template_kwargs must not set {}: the server does", key);
            return false;
        }
        w.key(guard.guard(key));
        append_guarded_json(w, value, guard);
        return true;
    });
    return status;
}

tl::unexpected<Error> too_long(std::string_view param, std::string_view at_least,
                               std::size_t tokens, std::uint32_t context) {
    auto e = error(ErrorCode::kTooLarge,
                   "This model's maximum context length is {} tokens, of which at least one is for "
                   "the answer, but the prompt has {}{} tokens; please shorten it",
                   context, at_least, tokens);
    e.value().param = param;
    return e;
}

/// No token is longer than the longest: cheap proof that a text can't fit.
Result<void> refuse_hopeless(std::size_t bytes, const ModelEntry& entry, std::string_view param) {
    const std::size_t at_least = bytes / entry.longest_token_bytes;
    if (at_least <= entry.context_tokens()) return {};
    return too_long(param, "at least ", at_least, entry.context_tokens());
}

}  // namespace

Result<std::string> chat_context_json(const ChatRequest& request, const text::SpecialGuard& guard) {
    std::string out;
    constexpr std::size_t kPerMessage = 64;
    out.reserve(request.text_bytes() + (request.messages.size() + 2) * kPerMessage);
    JsonWriter w(out);
    w.begin_object().key("messages").begin_array();
    for (const ChatMessage& m : request.messages) {
        if (auto ok = append_message(w, m, guard); !ok) {
            return tl::unexpected<Error>(std::move(ok.error()));
        }
    }
    w.end_array();
    w.key("add_generation_prompt").boolean(true).key("tools").null().key("documents").null();
    if (!request.template_kwargs_json.empty()) {
        if (auto ok = append_kwargs(w, request.template_kwargs_json, guard); !ok) {
            return tl::unexpected<Error>(std::move(ok.error()));
        }
    }
    w.end_object();
    return out;
}

Result<std::vector<TokenId>> encode_chat(const ChatRequest& request, const ModelEntry& entry,
                                         std::int64_t unix_seconds) {
    const ServedModel& model = entry.model;
    if (model.chat_template == nullptr) {
        return param_error("messages",
                           "the model \"{}\" has no chat template; use /v1/completions with the "
                           "prompt written out",
                           model.id);
    }
    if (auto ok = refuse_hopeless(request.text_bytes(), entry, "messages"); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    auto context = chat_context_json(request, *entry.guard);
    if (!context) return tl::unexpected<Error>(std::move(context.error()));
    auto rendered = model.chat_template->render(*context, unix_seconds);
    if (!rendered) {
        Error e = std::move(rendered.error());
        if (e.param.empty()) e.param = "messages";
        return tl::unexpected<Error>(std::move(e));
    }
    context->clear();
    context->shrink_to_fit();
    std::vector<TokenId> tokens;
    // Templates write BOS themselves where the model wants it.
    if (auto ok = text::encode_guarded(*model.tokenizer, *rendered, false, tokens); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    return tokens;
}

Result<std::vector<TokenId>> encode_prompt(PromptInput input, const ModelEntry& entry) {
    if (auto* ids = std::get_if<std::vector<TokenId>>(&input)) return std::move(*ids);
    const auto& text = std::get<std::string>(input);
    if (auto ok = refuse_hopeless(text.size(), entry, "prompt"); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    std::vector<TokenId> tokens;
    if (auto ok = entry.model.tokenizer->encode(text, text::SpecialTokens::kParse, true, tokens);
        !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    return tokens;
}

Result<std::uint32_t> fit_context(std::size_t prompt_tokens, const GenerationFields& fields,
                                  std::optional<std::uint32_t> default_tokens,
                                  std::uint32_t context_tokens, std::string_view prompt_param) {
    if (prompt_tokens == 0) {
        return param_error(prompt_param, "{} has no tokens; give at least one", prompt_param);
    }
    if (prompt_tokens >= context_tokens) {
        return too_long(prompt_param, "", prompt_tokens, context_tokens);
    }
    const auto room = static_cast<std::uint32_t>(context_tokens - prompt_tokens);
    std::uint32_t most = std::min(default_tokens.value_or(room), room);
    if (fields.max_tokens) {
        if (*fields.max_tokens > room) {
            auto e =
                error(ErrorCode::kTooLarge,
                      "This model's maximum context length is {} tokens, but the request needs "
                      "{}: {} in the prompt and {} to generate; please lower {} to {} or "
                      "shorten the prompt",
                      context_tokens, prompt_tokens + *fields.max_tokens, prompt_tokens,
                      *fields.max_tokens, fields.max_tokens_field, room);
            e.value().param = fields.max_tokens_field;
            return e;
        }
        most = *fields.max_tokens;
    }
    if (fields.min_tokens > most) {
        return param_error("min_tokens",
                           "min_tokens is {} and must not exceed the {} tokens that may "
                           "be generated",
                           fields.min_tokens, most);
    }
    return most;
}

}  // namespace stator::frontend
