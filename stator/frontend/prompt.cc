#include "stator/frontend/prompt.h"

#include <algorithm>
#include <utility>

#include "stator/frontend/chat_context.h"
#include "stator/frontend/media_prompt.h"
#include "stator/text/detokenizer.h"
#include "stator/text/special_guard.h"

namespace stator::frontend {
namespace {

using tokens::TokenId;

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

/// Cuts off what the template wrote behind the last message's content.
Result<void> cut_at_mark(std::string& rendered) {
    const std::size_t mark = rendered.rfind(kContinueMark);
    if (mark == std::string::npos) {
        return param_error("continue_final_message",
                           "continue_final_message: the model's chat template does not show the "
                           "last message's content as it is, so the answer can't go on with it");
    }
    // A space follows the mark: where it is gone the template trims, and would have trimmed here.
    const bool trims =
        !std::string_view(rendered).substr(mark + kContinueMark.size()).starts_with(' ');
    rendered.resize(mark);
    if (trims) rendered.resize(rendered.find_last_not_of(" \t\r\n") + 1);
    return {};
}

Result<std::string> render_chat(const ChatRequest& request, const ModelEntry& entry,
                                std::int64_t unix_seconds, MediaStyle media) {
    const ServedModel& model = entry.model;
    if (request.continue_final_message && !request.messages.back().content) {
        return param_error("continue_final_message",
                           "continue_final_message needs a last message with content");
    }
    auto context = chat_context(request, *entry.guard, entry.traits, model.format, media);
    if (!context) return tl::unexpected<Error>(std::move(context.error()));
    auto rendered = model.chat_template->render(context->json, unix_seconds, context->texts);
    if (!rendered) {
        if (rendered.error().param.empty()) rendered.error().param = "messages";
        return rendered;
    }
    if (request.continue_final_message) {
        if (auto ok = cut_at_mark(*rendered); !ok) {
            return tl::unexpected<Error>(std::move(ok.error()));
        }
    }
    return rendered;
}

/// The prompt and what of it lies between its media items. A template that knows media writes its
/// own mark for each; where that does not come out even, our marks say where they are.
Result<void> render_with_media(const ChatRequest& request, const ModelEntry& entry,
                               std::int64_t unix_seconds, std::string& text, MediaSplit& split) {
    const std::string& mark = entry.model.media_mark;
    if (!request.media.empty() && !mark.empty()) {
        auto rendered = render_chat(request, entry, unix_seconds, MediaStyle::kParts);
        if (rendered) {
            text = std::move(*rendered);
            split = split_at_mark(text, mark);
            if (split.items.size() == request.media.size()) return {};
        }
    }
    auto rendered = render_chat(request, entry, unix_seconds, MediaStyle::kMarks);
    if (!rendered) return tl::unexpected<Error>(std::move(rendered.error()));
    text = std::move(*rendered);
    if (request.media.empty()) {  // then what looks like a mark is a client's text
        split.texts = {text};
        return {};
    }
    split = split_at_media_marks(text);
    if (!names_each_once(split, request.media.size())) {
        return param_error("messages",
                           "the model's chat template does not show each image exactly once where "
                           "these messages have them");
    }
    return {};
}

/// As encode_guarded() reads a rendered prompt, piece by piece.
Result<void> encode_split(const text::Tokenizer& tokenizer, const MediaSplit& split,
                          EncodedChat& out) {
    bool first = true;
    for (std::size_t i = 0; i < split.texts.size(); ++i) {
        if (i > 0) out.media.push_back({out.tokens.size(), split.items[i - 1]});
        for (const std::string_view piece : text::guarded_pieces(split.texts[i])) {
            constexpr auto kParse = text::SpecialTokens::kParse;
            auto done = std::exchange(first, false)
                            ? tokenizer.encode(piece, kParse, false, out.tokens)
                            : tokenizer.encode_more(piece, kParse, out.tokens);
            if (!done) return done;
        }
    }
    return {};
}

}  // namespace

Result<EncodedChat> encode_chat(const ChatRequest& request, const ModelEntry& entry,
                                std::int64_t unix_seconds, const std::atomic<bool>* abandoned) {
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
    std::string rendered;
    MediaSplit split;
    if (auto ok = render_with_media(request, entry, unix_seconds, rendered, split); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    if (abandoned != nullptr && abandoned->load(std::memory_order_relaxed)) {
        return error(ErrorCode::kCancelled, "the client left");
    }
    EncodedChat out;
    out.ends_in_reasoning = !model.format.reasoning.empty() &&
                            text::ends_in_reasoning(model.format.reasoning, rendered);
    // Templates write BOS themselves where the model wants it.
    if (auto ok = encode_split(*model.tokenizer, split, out); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    return out;
}

bool ends_in_reasoning(std::span<const TokenId> prompt, const ServedModel& model) {
    if (model.format.reasoning.empty()) return false;
    // The mark that opens thinking is the prompt's last but for white space.
    constexpr std::size_t kLast = 64;
    text::Detokenizer detokenizer(*model.tokenizer, {}, text::ControlTokens::kSpelled);
    std::string tail;
    for (const TokenId t : prompt.last(std::min(kLast, prompt.size()))) detokenizer.push(t, tail);
    return text::ends_in_reasoning(model.format.reasoning, tail);
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
