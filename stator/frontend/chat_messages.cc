#include "stator/frontend/chat_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "stator/frontend/media_parts.h"
#include "stator/frontend/tool_fields.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};

tl::unexpected<Error> unsupported(std::string_view path, ErrorFormat format, std::string_view first,
                                  std::string_view second) {
    auto e = error(ErrorCode::kUnsupported, format, first, second);
    e.value().param = path;
    return e;
}

/// Where messages are read to.
struct Target {
    const RequestRules& rules;
    std::vector<media::MediaSource>& media;
};

void read_part(JsonView part, const std::string& path, std::vector<ChatPart>& out, Target& target,
               FieldReader& message) {
    FieldReader fields(part, path);
    const auto type = fields.view("type").as_string();
    if (!type && !part.is_null() && part.type() == JsonType::kObject) {
        fields.fail_type("type", "a string such as \"text\"", fields.view("type"));
        return message.fail_with(fields);
    }
    if (!type) {
        return message.fail(
            param_error(path, "{} must be an object with a type, not {}", path, describe(part)));
    }
    if (is_media_part(*type)) {
        auto source = read_media_part(fields, path, *type, target.rules);
        if (source) {
            if (target.media.size() >= protocol::kMaxMediaItems) {
                return message.fail(param_error(path,
                                                "{} is one media item too many; at most {} "
                                                "are allowed in a request",
                                                path, protocol::kMaxMediaItems));
            }
            out.push_back({{}, static_cast<std::uint32_t>(target.media.size())});
            target.media.push_back(std::move(*source));
        }
        return message.fail_with(fields);
    }
    if (*type != "text" && *type != "refusal") {
        return message.fail(unsupported_part(*type, path, target.rules));
    }
    const auto text = fields.view(*type).as_string();
    if (!text) {
        fields.fail_type(*type, "a string", fields.view(*type));
        return message.fail_with(fields);
    }
    out.push_back({std::string(*text), std::nullopt});
}

void read_content(FieldReader& message, ChatMessage& out, Target& target) {
    const JsonView content = message.view("content");
    if (const auto text = content.as_string()) {
        out.content = *text;
        return;
    }
    if (content.is_null()) return;
    if (content.type() != JsonType::kArray || content.size() == 0) {
        return message.fail_type("content", "a string or an array of at least one part", content);
    }
    std::size_t bytes = 0;
    content.each_element([&](std::size_t i, JsonView part) {
        read_part(part, fmt::format("{}[{}]", message.path("content"), i), out.parts, target,
                  message);
        if (message.ok()) bytes += out.parts.back().text.size() + 1;
        return message.ok();
    });
    std::string& joined = out.content.emplace();
    joined.reserve(bytes);
    bool first = true;
    for (const ChatPart& part : out.parts) {
        if (part.media) continue;
        if (!std::exchange(first, false)) joined += '\n';
        joined += part.text;
    }
    if (out.role == "assistant" && out.has_media()) {
        const std::string where = message.path("content");
        message.fail(unsupported(where, "{} has media, which messages of the {} can't have", where,
                                 out.role));
    }
}

/// Arguments as models write them: a string that is a JSON object. Empty stands for none.
void read_arguments(FieldReader& function, std::string& out) {
    const JsonView v = function.view("arguments");
    const auto text = v.as_string();
    if (!text) return function.fail_type("arguments", "a string that is a JSON object", v);
    if (text->find_first_not_of(" \t\r\n") == std::string_view::npos) {
        out = "{}";
        return;
    }
    codec::JsonDocument document;
    const auto value = document.parse(*text);
    const std::string where = function.path("arguments");
    if (!value) {
        return function.fail(param_error(where, "{} must be a string that is a JSON object: {}",
                                         where, value.error().message));
    }
    if (value->type() != JsonType::kObject) {
        return function.fail(param_error(where, "{} must be a string that is a JSON object, not {}",
                                         where, describe(*value)));
    }
    out = *text;
}

void read_call(JsonView v, const std::string& path, ChatToolCall& out, FieldReader& message) {
    if (v.is_null() || v.type() != JsonType::kObject) {
        return message.fail(param_error(path, "{} must be an object, not {}", path, describe(v)));
    }
    FieldReader call(v, path);
    const auto id = call.view("id").as_string();
    if (!id || id->empty()) call.fail_type("id", "a non-empty string", call.view("id"));
    const JsonView type = call.view("type");
    if (type.present() && type.as_string() != "function") {
        call.fail_type("type", "\"function\"", type);
    }
    const JsonView body = call.view("function");
    if (body.is_null() || body.type() != JsonType::kObject) {
        call.fail_type("function", "an object with name and arguments", body);
    }
    FieldReader function(body, path + ".function");
    const auto name = function.view("name").as_string();
    if (!name || name->empty()) {
        function.fail_type("name", "a non-empty string", function.view("name"));
    }
    read_arguments(function, out.arguments);
    call.fail_with(function);
    if (!call.ok()) return message.fail_with(call);
    out.id = *id;
    out.name = *name;
}

void read_calls(FieldReader& message, ChatMessage& out) {
    const auto calls = message.array("tool_calls", "an array of calls");
    if (!calls || calls->size() == 0) return;
    if (out.role != "assistant") {
        const std::string where = message.path("tool_calls");
        return message.fail(
            param_error(where, "{} is only allowed in messages of the assistant", where));
    }
    if (calls->size() > kMaxToolCallsInMessage) {
        const std::string where = message.path("tool_calls");
        return message.fail(param_error(where, "{} has {} calls; at most {} are allowed", where,
                                        calls->size(), kMaxToolCallsInMessage));
    }
    calls->each_element([&](std::size_t i, JsonView v) {
        read_call(v, fmt::format("{}[{}]", message.path("tool_calls"), i),
                  out.tool_calls.emplace_back(), message);
        return message.ok();
    });
}

void read_assistant(FieldReader& message, ChatMessage& out) {
    read_calls(message, out);
    // The first is DeepSeek's name for it, the second OpenRouter's and later vLLM's.
    auto reasoning = message.string("reasoning_content");
    if (!reasoning) reasoning = message.string("reasoning");
    if (reasoning && out.role == "assistant") out.reasoning = *reasoning;
    if (const auto refusal = message.string("refusal");
        refusal && !out.content && out.role == "assistant") {
        out.content = *refusal;
    }
    for (const std::string_view name : {"function_call", "audio"}) {
        if (message.view(name).is_null()) continue;
        const std::string where = message.path(name);
        return message.fail(
            unsupported(where, "{} is not served here; {}", where,
                        name == "audio" ? "only text is read" : "send tool_calls instead"));
    }
}

void read_message(JsonView v, std::size_t index, ChatMessage& out, Target& target,
                  FieldReader& fields) {
    const std::string path = fmt::format("messages[{}]", index);
    if (v.is_null() || v.type() != JsonType::kObject) {
        return fields.fail_type(path, "an object", v);
    }
    FieldReader message(v, path);
    const auto role = message.one_of("role", kRoles);
    if (!role) {
        message.fail_type("role", "one of " + list_words(kRoles), message.view("role"));
        return fields.fail_with(message);
    }
    out.role = *role;
    read_content(message, out, target);
    if (const auto name = message.string("name")) out.name = *name;
    read_assistant(message, out);
    if (const auto id = message.string("tool_call_id")) out.tool_call_id = *id;
    if (out.role == "tool" && out.tool_call_id.empty()) {
        message.fail_type("tool_call_id", "the id of the call that this is the result of",
                          message.view("tool_call_id"));
    }
    const bool may_be_empty = out.role == "assistant";
    if (!out.content && !may_be_empty) {
        message.fail_type("content", "a string or an array of at least one text part",
                          message.view("content"));
    }
    if (!out.content && out.tool_calls.empty() && out.reasoning.empty()) {
        const std::string where = message.path("content");
        message.fail(param_error(
            where, "{} is missing: a message of the assistant needs content or tool_calls", where));
    }
    fields.fail_with(message);
}

}  // namespace

bool ChatMessage::has_media() const {
    return std::ranges::any_of(parts, [](const ChatPart& p) { return p.media.has_value(); });
}

void read_messages(FieldReader& fields, const RequestRules& rules, std::vector<ChatMessage>& out,
                   std::vector<media::MediaSource>& media) {
    Target target{rules, media};
    const JsonView messages = fields.view("messages");
    if (messages.is_null() || messages.type() != JsonType::kArray || messages.size() == 0) {
        return fields.fail_type("messages", "an array of at least one message", messages);
    }
    if (!fields.ok()) return;
    out.reserve(messages.size());
    messages.each_element([&](std::size_t i, JsonView v) {
        read_message(v, i, out.emplace_back(), target, fields);
        return fields.ok();
    });
}

}  // namespace stator::frontend
