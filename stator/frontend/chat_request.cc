#include "stator/frontend/chat_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};

Result<void> append_part(JsonView part, std::string_view where, bool first, std::string& out) {
    const auto type = part.find("type").as_string();
    if (!type) {
        return param_error("messages", "{} must be an object with a type, not {}", where,
                           describe(part));
    }
    if (*type != "text" && *type != "refusal") {
        auto e = error(ErrorCode::kUnsupported,
                       "{} is of type \"{}\"; this model reads parts of type \"text\" only", where,
                       type->substr(0, 40));
        e.value().param = "messages";
        return e;
    }
    const auto text = part.find(*type).as_string();
    if (!text) {
        return param_error("messages", "{}.{} must be a string, not {}", where, *type,
                           describe(part.find(*type)));
    }
    if (!first) out += '\n';
    out += *text;
    return {};
}

Result<std::optional<std::string>> read_content(JsonView content, std::string_view role,
                                                std::string_view where) {
    if (const auto text = content.as_string()) return std::string(*text);
    if (content.is_null()) {
        if (role == "assistant") return std::nullopt;
        return param_error("messages",
                           "{}.content is missing: a {} message needs a string or text parts",
                           where, role);
    }
    if (content.type() != JsonType::kArray) {
        return param_error("messages",
                           "{}.content must be a string or an array of text parts, not {}", where,
                           describe(content));
    }
    std::string joined;
    Result<void> status;
    content.each_element([&](std::size_t i, JsonView part) {
        status = append_part(part, fmt::format("{}.content[{}]", where, i), i == 0, joined);
        return status.has_value();
    });
    if (!status) return tl::unexpected<Error>(std::move(status.error()));
    return joined;
}

Result<void> read_optional_string(JsonView message, std::string_view key, std::string_view where,
                                  std::string& out) {
    const JsonView v = message.find(key);
    if (v.is_null()) return {};
    const auto s = v.as_string();
    if (!s) {
        return param_error("messages", "{}.{} must be a string, not {}", where, key, describe(v));
    }
    out = *s;
    return {};
}

Result<ChatMessage> read_message(JsonView message, std::size_t index) {
    const std::string where = fmt::format("messages[{}]", index);
    if (!message.present() || message.type() != JsonType::kObject) {
        return param_error("messages", "{} must be an object, not {}", where, describe(message));
    }
    ChatMessage out;
    const JsonView role = message.find("role");
    const auto name = role.as_string();
    if (!name || std::ranges::find(kRoles, *name) == kRoles.end()) {
        return param_error(
            "messages",
            "{}.role must be one of system, developer, user, assistant and tool, not {}", where,
            describe(role));
    }
    out.role = *name;
    auto content = read_content(message.find("content"), out.role, where);
    if (!content) return tl::unexpected<Error>(std::move(content.error()));
    out.content = std::move(*content);
    if (auto r = read_optional_string(message, "name", where, out.name); !r) {
        return tl::unexpected<Error>(std::move(r.error()));
    }
    if (auto r = read_optional_string(message, "tool_call_id", where, out.tool_call_id); !r) {
        return tl::unexpected<Error>(std::move(r.error()));
    }
    const JsonView calls = message.find("tool_calls");
    if (!calls.is_null()) {
        if (calls.type() != JsonType::kArray) {
            return param_error("messages", "{}.tool_calls must be an array, not {}", where,
                               describe(calls));
        }
        if (calls.size() > 0) calls.write_to(out.tool_calls_json);
    }
    if (!out.content && out.tool_calls_json.empty()) {
        return param_error(
            "messages", "{}.content is missing: an assistant message needs content or tool_calls",
            where);
    }
    return out;
}

void read_messages(FieldReader& fields, std::vector<ChatMessage>& out) {
    const JsonView messages = fields.view("messages");
    if (!messages.present() || messages.type() != JsonType::kArray || messages.size() == 0) {
        return fields.fail_type("messages", "an array of at least one message", messages);
    }
    if (!fields.ok()) return;
    out.reserve(messages.size());
    messages.each_element([&](std::size_t i, JsonView v) {
        auto message = read_message(v, i);
        if (!message) {
            fields.fail(tl::unexpected<Error>(std::move(message.error())));
            return false;
        }
        out.push_back(std::move(*message));
        return true;
    });
}

void read_max_tokens(FieldReader& fields, GenerationFields& out) {
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    const auto old_name = fields.integer("max_tokens", 1, kMost);
    const auto new_name = fields.integer("max_completion_tokens", 1, kMost);
    if (new_name) {
        out.max_tokens = static_cast<std::uint32_t>(*new_name);
        out.max_tokens_field = "max_completion_tokens";
    } else if (old_name) {
        out.max_tokens = static_cast<std::uint32_t>(*old_name);
    }
}

void read_logprobs(FieldReader& fields, const RequestRules& rules, GenerationFields& out) {
    const bool wanted = fields.boolean("logprobs").value_or(false);
    const auto most = static_cast<std::int64_t>(std::min(kMaxTopLogprobs, rules.max_top_logprobs));
    const auto top = fields.integer("top_logprobs", 0, most);
    if (wanted) {
        out.top_logprobs = static_cast<std::int32_t>(top.value_or(0));
    } else if (top.value_or(0) > 0) {
        fields.fail(
            param_error("top_logprobs", "top_logprobs is only allowed where logprobs is true"));
    }
}

void refuse_unserved_chat(FieldReader& fields) {
    refuse_unless_empty(fields, "tools", "this server does not call tools yet");
    refuse_unless_empty(fields, "functions", "this server does not call functions yet");
    for (const std::string_view name : {"tool_choice", "function_call"}) {
        const auto text = fields.view(name).as_string();
        if (text != "none" && text != "auto") {
            refuse_unless_empty(fields, name, "this server does not call tools yet");
        }
    }
    refuse_unless_empty(fields, "audio", "only text is generated");
    refuse_unless_empty(fields, "web_search_options", "this server does not search the web");
    refuse_unless_empty(fields, "chat_template", "the template comes from the model");
    refuse_unless_empty(fields, "continue_final_message", "use /v1/completions to continue a text");
    fields.view("modalities").each_element([&](std::size_t, JsonView v) {
        if (v.as_string() == "text") return true;
        refuse_unless_empty(fields, "modalities", "only text is generated");
        return false;
    });
}

}  // namespace

std::size_t ChatRequest::text_bytes() const {
    std::size_t bytes = 0;
    for (const ChatMessage& m : messages) bytes += m.content ? m.content->size() : 0;
    return bytes;
}

Result<ChatRequest> read_chat_request(JsonView body, const RequestRules& rules) {
    ChatRequest out;
    FieldReader fields(body);
    read_shared_fields(fields, rules, out.fields);
    read_max_tokens(fields, out.fields);
    read_logprobs(fields, rules, out.fields);
    refuse_unserved_chat(fields);
    if (const auto kwargs = fields.object("chat_template_kwargs", "an object")) {
        if (kwargs->size() > 0) kwargs->write_to(out.template_kwargs_json);
    }
    read_messages(fields, out.messages);
    if (!fields.ok()) return fields.error();
    return out;
}

}  // namespace stator::frontend
