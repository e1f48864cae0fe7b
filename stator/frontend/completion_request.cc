#include "stator/frontend/completion_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using tokens::TokenId;

constexpr std::string_view kPromptWords =
    "a non-empty string, an array of strings, an array of token ids or an array of such arrays";

Result<PromptInput> read_tokens(JsonView array, std::string_view where, const RequestRules& rules) {
    std::vector<TokenId> ids;
    ids.reserve(array.size());
    Result<PromptInput> out;
    bool failed = false;
    array.each_element([&](std::size_t i, JsonView v) {
        // The common case first: naming the place of every id would cost more than reading it.
        const auto id = v.as_uint();
        if (id && rules.vocab_size != 0 && *id < rules.vocab_size) {
            ids.push_back(static_cast<TokenId>(*id));
            return true;
        }
        auto checked = read_token_id(v, "prompt", fmt::format("{}[{}]", where, i), rules);
        if (!checked) {
            out = tl::unexpected<Error>(std::move(checked.error()));
            failed = true;
            return false;
        }
        ids.push_back(*checked);
        return true;
    });
    if (!failed) out = PromptInput(std::move(ids));
    return out;
}

Result<PromptInput> read_one(JsonView v, std::size_t index, const RequestRules& rules) {
    const std::string where = fmt::format("prompt[{}]", index);
    if (const auto text = v.as_string(); text && !text->empty())
        return PromptInput(std::string(*text));
    if (v.present() && v.type() == JsonType::kArray && v.size() > 0)
        return read_tokens(v, where, rules);
    return param_error("prompt",
                       "{} must be a non-empty string or a non-empty array of token ids, not {}",
                       where, describe(v));
}

void read_prompts(FieldReader& fields, const RequestRules& rules, std::vector<PromptInput>& out) {
    const JsonView prompt = fields.view("prompt");
    const auto add = [&](Result<PromptInput> input) {
        if (!input) {
            fields.fail(tl::unexpected<Error>(std::move(input.error())));
            return false;
        }
        out.push_back(std::move(*input));
        return true;
    };
    if (const auto text = prompt.as_string(); text && !text->empty()) {
        add(PromptInput(std::string(*text)));
        return;
    }
    if (!prompt.present() || prompt.type() != JsonType::kArray || prompt.size() == 0) {
        return fields.fail_type("prompt", kPromptWords, prompt);
    }
    bool flat = false;  // an array of ids is one prompt
    prompt.each_element([&](std::size_t, JsonView first) {
        flat = first.as_double().has_value();
        return false;
    });
    if (flat) {
        add(read_tokens(prompt, "prompt", rules));
        return;
    }
    if (prompt.size() > rules.max_choices) {
        return fields.fail(param_error("prompt", "prompt has {} prompts; at most {} are allowed",
                                       prompt.size(), rules.max_choices));
    }
    prompt.each_element([&](std::size_t i, JsonView v) { return add(read_one(v, i, rules)); });
}

void check_best_of(FieldReader& fields, const RequestRules& rules, std::uint32_t n) {
    const auto best_of = fields.integer("best_of", 1, rules.max_choices);
    if (!best_of || *best_of == n) return;
    if (*best_of < n) {
        return fields.fail(param_error(
            "best_of", "best_of is {} and must be at least n, which is {}", *best_of, n));
    }
    auto e = error(ErrorCode::kUnsupported,
                   "best_of larger than n is not served: best_of is {} and n is {}", *best_of, n);
    e.value().param = "best_of";
    fields.fail(std::move(e));
}

}  // namespace

Result<CompletionRequest> read_completion_request(JsonView body, const RequestRules& rules) {
    CompletionRequest out;
    FieldReader fields(body);
    read_shared_fields(fields, rules, out.fields);
    if (const auto most =
            fields.integer("max_tokens", 1, std::numeric_limits<std::int32_t>::max())) {
        out.fields.max_tokens = static_cast<std::uint32_t>(*most);
    }
    const auto most = static_cast<std::int64_t>(std::min(kMaxTopLogprobs, rules.max_top_logprobs));
    if (const auto top = fields.integer("logprobs", 0, most)) {
        out.fields.top_logprobs = static_cast<std::int32_t>(*top);
    }
    refuse_unless_empty(fields, "echo", "the prompt is not given back");
    refuse_unless_empty(fields, "suffix", "only continuations are generated");
    check_best_of(fields, rules, out.fields.n);
    read_prompts(fields, rules, out.prompts);
    if (fields.ok() && out.prompts.size() * out.fields.n > rules.max_choices) {
        fields.fail(param_error("n",
                                "{} prompts with n = {} make {} choices; at most {} are allowed",
                                out.prompts.size(), out.fields.n, out.prompts.size() * out.fields.n,
                                rules.max_choices));
    }
    if (!fields.ok()) return fields.error();
    return out;
}

}  // namespace stator::frontend
