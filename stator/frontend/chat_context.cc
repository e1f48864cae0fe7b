#include "stator/frontend/chat_context.h"

#include <algorithm>
#include <array>
#include <utility>

#include "stator/codec/json_writer.h"
#include "stator/text/chat_template.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using codec::JsonWriter;

/// Writes one request's context; keeps the buffers that JSON in strings is parsed with.
class ContextWriter {
  public:
    ContextWriter(const ChatRequest& request, const text::SpecialGuard& guard,
                  const text::TemplateTraits& traits, const text::OutputFormat& format,
                  MediaStyle media, ChatContext& out)
        : request_(request),
          media_(media),
          guard_(guard),
          traits_(traits),
          format_(format),
          w_(out.json),
          texts_(out.texts) {}

    Result<void> write();

  private:
    /// A client's text as templates may have it.
    [[nodiscard]] std::string clean(std::string_view text) const;
    void guarded(std::string_view text) { w_.string(clean(text)); }
    void guarded_value(JsonView value);
    Result<void> guarded_json(std::string_view json);
    void long_text(std::string text);
    void content(const ChatMessage& m, bool last);
    void text_part(std::string_view text);
    void media_part(std::uint32_t item);
    [[nodiscard]] std::string as_text(const ChatMessage& m) const;
    Result<void> calls(const ChatMessage& m);
    Result<void> message(const ChatMessage& m, bool last);
    Result<void> tools();
    Result<void> kwargs(bool& has_thinking);

    const ChatRequest& request_;
    const MediaStyle media_;
    const text::SpecialGuard& guard_;
    const text::TemplateTraits& traits_;
    const text::OutputFormat& format_;
    JsonWriter w_;
    std::vector<std::string>& texts_;
    codec::JsonDocument document_;
};

std::string ContextWriter::clean(std::string_view text) const {
    if (request_.media.empty() || text.find(kMediaMarkBegin) == std::string_view::npos) {
        return guard_.guard(text);
    }
    std::string without;
    for (std::size_t at = 0;;) {
        const std::size_t mark = text.find(kMediaMarkBegin, at);
        without += text.substr(at, mark - at);
        if (mark == std::string_view::npos) return guard_.guard(without);
        at = mark + kMediaMarkBegin.size();
    }
}

/// A client's JSON value again, with its strings and keys guarded. Depth is bounded by the parser.
void ContextWriter::guarded_value(JsonView value) {
    if (const auto text = value.as_string()) return guarded(*text);
    switch (value.type()) {
        case JsonType::kArray:
            w_.begin_array();
            value.each_element([&](std::size_t, JsonView v) {
                guarded_value(v);
                return true;
            });
            w_.end_array();
            return;
        case JsonType::kObject:
            w_.begin_object();
            value.each_member([&](std::string_view key, JsonView v) {
                w_.key(clean(key));
                guarded_value(v);
                return true;
            });
            w_.end_object();
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
    w_.raw(plain);
}

Result<void> ContextWriter::guarded_json(std::string_view json) {
    auto value = document_.parse(json);
    if (!value) return tl::unexpected<Error>(std::move(value.error()));
    guarded_value(*value);
    return {};
}

void ContextWriter::text_part(std::string_view text) {
    w_.begin_object().key("type").string("text").key("text").string(text).end_object();
}

void ContextWriter::media_part(std::uint32_t item) {
    if (media_ == MediaStyle::kMarks) return text_part(media_mark(item));
    const bool video = request_.media[item].kind == protocol::MediaContent::Kind::kVideo;
    w_.begin_object().key("type").string(video ? "video" : "image").end_object();
}

/// The content in one piece, media items as marks.
std::string ContextWriter::as_text(const ChatMessage& m) const {
    if (!m.has_media()) return clean(*m.content);
    std::string out;
    for (const ChatPart& part : m.parts) {
        if (&part != &m.parts.front()) out += '\n';
        out += part.media ? media_mark(*part.media) : clean(part.text);
    }
    return out;
}

/// Beside the JSON, where writing it there and reading it again costs more than naming it.
void ContextWriter::long_text(std::string text) {
    constexpr std::size_t kLong = 256;
    if (text.size() < kLong) {
        w_.string(text);
        return;
    }
    w_.string(text::ChatTemplate::text_mark(texts_.size()));
    texts_.push_back(std::move(text));
}

void ContextWriter::content(const ChatMessage& m, bool last) {
    w_.key("content");
    const std::string mark =
        last && request_.continue_final_message ? std::string(kContinueMark) + " " : std::string();
    const bool media = m.has_media();
    const bool nothing = !m.content || (m.content->empty() && !m.tool_calls.empty() && !media);
    if (nothing && mark.empty()) {
        if (traits_.null_content) {
            w_.null();
        } else {
            w_.string("");
        }
        return;
    }
    const bool as_parts = (media && media_ == MediaStyle::kParts) ||
                          (traits_.part_content && (!m.parts.empty() || !traits_.text_content));
    if (!as_parts) {
        long_text(as_text(m) + mark);
        return;
    }
    w_.begin_array();
    if (m.parts.empty()) text_part(clean(*m.content) + mark);
    for (const ChatPart& part : m.parts) {
        if (part.media) {
            media_part(*part.media);
        } else {
            text_part(clean(part.text) + (&part == &m.parts.back() ? mark : std::string()));
        }
    }
    w_.end_array();
}

/// An id as Mistral's templates want it: itself, where it is 9 letters and digits, else 9 that
/// depend on it alone, so that a call and its result still agree.
std::string short_call_id(std::string_view id) {
    constexpr std::size_t kDigits = 9;
    constexpr std::string_view kAlphabet =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const auto known = [&](char c) { return kAlphabet.find(c) != std::string_view::npos; };
    if (id.size() == kDigits && std::ranges::all_of(id, known)) return std::string(id);
    std::uint64_t hash = XXH3_64bits(id.data(), id.size());
    std::string out;
    for (std::size_t i = 0; i < kDigits; ++i, hash /= kAlphabet.size()) {
        out += kAlphabet[hash % kAlphabet.size()];
    }
    return out;
}

Result<void> ContextWriter::calls(const ChatMessage& m) {
    w_.key("tool_calls").begin_array();
    for (const ChatToolCall& call : m.tool_calls) {
        w_.begin_object().key("id");
        guarded(traits_.short_call_ids ? short_call_id(call.id) : call.id);
        w_.key("type").string("function").key("function").begin_object().key("name");
        guarded(call.name);
        w_.key("arguments");
        if (traits_.string_arguments) {
            guarded(call.arguments);
        } else if (auto ok = guarded_json(call.arguments); !ok) {
            return ok;
        }
        w_.end_object().end_object();
    }
    w_.end_array();
    return {};
}

Result<void> ContextWriter::message(const ChatMessage& m, bool last) {
    const bool as_system = m.role == "developer" && !traits_.developer_role;
    w_.begin_object().key("role").string(as_system ? "system" : m.role);
    content(m, last);
    if (!m.name.empty()) {
        w_.key("name");
        guarded(m.name);
    }
    if (!m.tool_call_id.empty()) {
        w_.key("tool_call_id");
        guarded(traits_.short_call_ids ? short_call_id(m.tool_call_id) : m.tool_call_id);
    }
    if (!m.reasoning.empty()) {
        w_.key("reasoning_content");
        guarded(m.reasoning);
        // gpt-oss' own name, whose template refuses it beside both content and calls.
        const bool has_text = m.content && !m.content->empty();
        if (format_.reasoning == "gpt_oss" && !(has_text && !m.tool_calls.empty())) {
            w_.key("thinking");
            guarded(m.reasoning);
        }
    }
    if (!m.tool_calls.empty()) {
        if (auto ok = calls(m); !ok) return ok;
    }
    w_.end_object();
    return {};
}

Result<void> ContextWriter::tools() {
    w_.key("tools");
    if (request_.tool_use.choice == ToolUse::Choice::kNone) {
        w_.null();
        return {};
    }
    w_.begin_array();
    for (const ToolSpec& tool : request_.tool_use.tools) {
        if (auto ok = guarded_json(tool.json); !ok) return ok;
    }
    w_.end_array();
    return {};
}

Result<void> ContextWriter::kwargs(bool& has_thinking) {
    if (request_.template_kwargs_json.empty()) return {};
    constexpr std::array<std::string_view, 7> kOurs = {
        "messages",  "add_generation_prompt", "tools", "documents", "bos_token",
        "eos_token", "continue_final_message"};
    auto kwargs = document_.parse(request_.template_kwargs_json);
    if (!kwargs) return tl::unexpected<Error>(std::move(kwargs.error()));
    Result<void> status;
    kwargs->each_member([&](std::string_view key, JsonView value) {
        const bool twice = key == "reasoning_effort" && !request_.reasoning_effort.empty();
        if (twice || std::ranges::find(kOurs, key) != kOurs.end()) {
            status = param_error("chat_template_kwargs",
                                 "chat_template_kwargs must not set {}: the request has a field "
                                 "for it, or the server sets it",
                                 key);
            return false;
        }
        has_thinking = has_thinking || key == "enable_thinking" || key == "thinking";
        w_.key(clean(key));
        guarded_value(value);
        return true;
    });
    return status;
}

Result<void> ContextWriter::write() {
    w_.begin_object().key("messages").begin_array();
    for (const ChatMessage& m : request_.messages) {
        if (auto ok = message(m, &m == &request_.messages.back()); !ok) return ok;
    }
    w_.end_array();
    w_.key("add_generation_prompt").boolean(request_.add_generation_prompt);
    if (auto ok = tools(); !ok) return ok;
    w_.key("documents");
    if (request_.documents_json.empty()) {
        w_.null();
    } else if (auto ok = guarded_json(request_.documents_json); !ok) {
        return ok;
    }
    bool has_thinking = false;
    if (auto ok = kwargs(has_thinking); !ok) return ok;
    if (!request_.reasoning_effort.empty()) {
        w_.key("reasoning_effort").string(request_.reasoning_effort);
        // The switches of models that can think or not, and have no degrees of it.
        if (request_.reasoning_effort == "none" && !has_thinking) {
            w_.key("enable_thinking").boolean(false).key("thinking").boolean(false);
        }
    }
    w_.end_object();
    return {};
}

}  // namespace

std::string media_mark(std::uint32_t item) {
    return std::string(kMediaMarkBegin) + std::to_string(item) + std::string(kMediaMarkEnd);
}

Result<ChatContext> chat_context(const ChatRequest& request, const text::SpecialGuard& guard,
                                 const text::TemplateTraits& traits,
                                 const text::OutputFormat& format, MediaStyle media) {
    ChatContext out;
    ContextWriter writer(request, guard, traits, format, media, out);
    if (auto ok = writer.write(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return out;
}

}  // namespace stator::frontend
