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

/// What the template gets beside messages and tools.
void read_template_fields(FieldReader& fields, ChatRequest& out) {
    if (const auto kwargs = fields.object("chat_template_kwargs", "an object")) {
        if (kwargs->size() > 0) kwargs->write_to(out.template_kwargs_json);
    }
    if (const auto documents = fields.array("documents", "an array of objects")) {
        documents->each_element([&](std::size_t i, JsonView v) {
            if (!v.is_null() && v.type() == JsonType::kObject) return true;
            fields.fail_type(fmt::format("documents[{}]", i), "an object", v);
            return false;
        });
        if (documents->size() > 0) documents->write_to(out.documents_json);
    }
    constexpr std::array<std::string_view, 7> kEfforts = {"none", "minimal", "low", "medium",
                                                          "high", "xhigh",   "max"};
    out.reasoning_effort = fields.one_of("reasoning_effort", kEfforts).value_or("");
    out.continue_final_message = fields.boolean("continue_final_message").value_or(false);
    const auto prompt = fields.boolean("add_generation_prompt");
    out.add_generation_prompt = prompt.value_or(!out.continue_final_message);
    if (out.continue_final_message && out.add_generation_prompt) {
        fields.fail(param_error("continue_final_message",
                                "continue_final_message and add_generation_prompt can't both be "
                                "true: the answer goes on with a message or begins one"));
    }
    out.include_reasoning = fields.boolean("include_reasoning").value_or(true);
    out.echo = fields.boolean("echo").value_or(false);
}

void read_metadata(FieldReader& fields) {
    constexpr std::size_t kMaxPairs = 16;  // this and the others are OpenAI's
    constexpr std::size_t kMaxKey = 64;
    constexpr std::size_t kMaxValue = 512;
    const auto metadata = fields.object("metadata", "an object of strings");
    if (!metadata) return;
    if (metadata->size() > kMaxPairs) {
        return fields.fail(param_error("metadata",
                                       "metadata has {} members; at most {} are allowed",
                                       metadata->size(), kMaxPairs));
    }
    metadata->each_member([&](std::string_view key, JsonView v) {
        const auto text = v.as_string();
        if (key.size() <= kMaxKey && text && text->size() <= kMaxValue) return true;
        const std::string where = fmt::format("metadata.{}", key.substr(0, kMaxKey));
        fields.fail(param_error(
            where, "{} must be a string of at most {} bytes under a key of at most {}, not {}",
            where, kMaxValue, kMaxKey, describe(v)));
        return false;
    });
}

/// Fields that are about OpenAI's own service or only give hints: checked, and of no effect here.
void check_hints(FieldReader& fields) {
    constexpr std::array<std::string_view, 5> kTiers = {"auto", "default", "flex", "scale",
                                                        "priority"};
    constexpr std::array<std::string_view, 3> kLevels = {"low", "medium", "high"};
    fields.one_of("service_tier", kTiers);
    fields.one_of("verbosity", kLevels);
    fields.boolean("store");
    for (const std::string_view name :
         {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}) {
        fields.string(name);
    }
    read_metadata(fields);
    if (const auto prediction = fields.object("prediction", "an object with type and content")) {
        FieldReader part(*prediction, "prediction");
        if (part.view("type").as_string() != "content") {
            part.fail_type("type", "\"content\"", part.view("type"));
        }
        const JsonView content = part.view("content");
        if (!content.as_string() && (content.is_null() || content.type() != JsonType::kArray)) {
            part.fail_type("content", "a string or an array of text parts", content);
        }
        fields.fail_with(part);
    }
}

void refuse_unserved_chat(FieldReader& fields) {
    refuse_unless_empty(fields, "audio", "only text is generated");
    refuse_unless_empty(fields, "web_search_options", "this server does not search the web");
    refuse_unless_empty(fields, "chat_template", "the template comes from the model");
    const auto modalities = fields.array("modalities", "an array that holds \"text\"");
    if (!modalities) return;
    modalities->each_element([&](std::size_t i, JsonView v) {
        if (v.as_string() == "text") return true;
        const std::string where = fmt::format("modalities[{}]", i);
        auto e = error(v.as_string() ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument,
                       "{} is {}, but only \"text\" is generated", where, describe(v));
        e.value().param = where;
        fields.fail(std::move(e));
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
    check_hints(fields);
    read_template_fields(fields, out);
    read_tool_use(fields, out.tool_use);
    read_messages(fields, rules, out.messages, out.media);
    if (!fields.ok()) return fields.error();
    return out;
}

}  // namespace stator::frontend
