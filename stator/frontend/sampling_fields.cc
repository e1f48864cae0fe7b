#include "stator/frontend/sampling_fields.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "stator/frontend/output_constraint.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using tokens::TokenId;

constexpr std::int64_t kMaxCount = std::numeric_limits<std::int32_t>::max();

void read_sampling(FieldReader& fields, const RequestRules& rules, protocol::SamplingParams& out) {
    out.temperature = fields.number("temperature", {0, 2}).value_or(rules.defaults.temperature);
    out.top_p = fields.number("top_p", {.low = 0, .high = 1, .low_open = true})
                    .value_or(rules.defaults.top_p);
    out.min_p = fields.number("min_p", {.low = 0, .high = 1, .high_open = true})
                    .value_or(rules.defaults.min_p);
    const auto top_k = fields.integer("top_k", -1, kMaxCount);
    out.top_k = top_k ? static_cast<std::int32_t>(*top_k > 0 ? *top_k : 0) : rules.defaults.top_k;
    out.frequency_penalty = fields.number("frequency_penalty", {-2, 2}).value_or(0.0F);
    out.presence_penalty = fields.number("presence_penalty", {-2, 2}).value_or(0.0F);
    out.repetition_penalty =
        fields.number("repetition_penalty", {.low = 0, .high = 2, .low_open = true}).value_or(1.0F);
    if (const auto seed = fields.integer("seed", std::numeric_limits<std::int64_t>::min(),
                                         std::numeric_limits<std::int64_t>::max())) {
        out.seed = static_cast<std::uint64_t>(*seed);
    }
}

void read_logit_bias(FieldReader& fields, const RequestRules& rules,
                     protocol::SamplingParams& out) {
    const auto object = fields.object("logit_bias", "an object of token ids to numbers");
    if (!object) return;
    if (object->size() > kMaxLogitBias) {
        return fields.fail(param_error("logit_bias",
                                       "logit_bias has {} entries; at most {} are allowed",
                                       object->size(), kMaxLogitBias));
    }
    constexpr NumberRange kRange{-100, 100};
    object->each_member([&](std::string_view key, JsonView value) {
        TokenId id = 0;
        const auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), id);
        if (ec != std::errc() || end != key.data() + key.size() ||
            (rules.vocab_size != 0 && id >= rules.vocab_size)) {
            fields.fail(param_error("logit_bias",
                                    "logit_bias has the key \"{}\", which is no token id below {}",
                                    key.substr(0, 40), rules.vocab_size));
            return false;
        }
        const auto bias = value.as_double();
        if (!bias || !kRange.has(*bias)) {
            const std::string where = fmt::format("logit_bias.{}", id);
            fields.fail(param_error(where, "{} must be a number {}, not {}", where, kRange.words(),
                                    describe(value)));
            return false;
        }
        out.logit_bias.emplace_back(id, static_cast<float>(*bias));
        return true;
    });
}

void add_stop(FieldReader& fields, JsonView value, const std::string& path, std::string_view what,
              std::vector<std::string>& out) {
    const auto text = value.as_string();
    if (!text || text->empty()) return fields.fail_type(path, what, value);
    if (text->size() > kMaxStopBytes) {
        return fields.fail(param_error(path, "{} is {} bytes long; at most {} are allowed", path,
                                       text->size(), kMaxStopBytes));
    }
    out.emplace_back(*text);
}

void read_stop(FieldReader& fields, std::vector<std::string>& out) {
    const JsonView stop = fields.view("stop");
    if (stop.is_null()) return;
    if (stop.type() != JsonType::kArray) {
        return add_stop(fields, stop, "stop", "a non-empty string or an array of such", out);
    }
    if (stop.size() > kMaxStopStrings) {
        return fields.fail(param_error("stop", "stop has {} strings; at most {} are allowed",
                                       stop.size(), kMaxStopStrings));
    }
    stop.each_element([&](std::size_t i, JsonView v) {
        add_stop(fields, v, fmt::format("stop[{}]", i), "a non-empty string", out);
        return fields.ok();
    });
}

void read_stop_tokens(FieldReader& fields, const RequestRules& rules, std::vector<TokenId>& out) {
    const auto array = fields.array("stop_token_ids", "an array of token ids");
    if (!array) return;
    if (array->size() > kMaxStopTokens) {
        return fields.fail(param_error("stop_token_ids",
                                       "stop_token_ids has {} ids; at most {} are allowed",
                                       array->size(), kMaxStopTokens));
    }
    array->each_element([&](std::size_t i, JsonView v) {
        const std::string where = fmt::format("stop_token_ids[{}]", i);
        auto id = read_token_id(v, where, where, rules);
        if (!id) {
            fields.fail(tl::unexpected<Error>(std::move(id.error())));
            return false;
        }
        out.push_back(*id);
        return true;
    });
}

void read_stream(FieldReader& fields, GenerationFields& out) {
    out.stream = fields.boolean("stream").value_or(false);
    const auto options = fields.object("stream_options", "an object");
    if (!options) return;
    if (!out.stream) {
        return fields.fail(
            param_error("stream_options", "stream_options is only allowed where stream is true"));
    }
    FieldReader part(*options, "stream_options");
    out.include_usage = part.boolean("include_usage").value_or(false);
    out.continuous_usage = part.boolean("continuous_usage_stats").value_or(false);
    // Of no effect: it would hide the lengths of what is sent from who listens to the network.
    part.boolean("include_obfuscation");
    fields.fail_with(part);
}

bool is_empty_value(JsonView v) {
    if (v.is_null()) return true;
    switch (v.type()) {
        case JsonType::kNull:
            return true;
        case JsonType::kBool:
            return !*v.as_bool();
        case JsonType::kInt:
        case JsonType::kUint:
        case JsonType::kDouble:
            return v.as_double() == 0.0;
        case JsonType::kString:
            return v.as_string()->empty();
        case JsonType::kArray:
        case JsonType::kObject:
            return v.size() == 0;
    }
    return false;
}

void refuse_unserved(FieldReader& fields) {
    // Other servers' names for other ways to decode.
    for (const std::string_view name : {"bad_words", "use_beam_search", "prompt_logprobs"}) {
        refuse_unless_empty(fields, name, "leave it out");
    }
}

}  // namespace

Result<std::string> read_model_field(JsonView request) {
    const JsonView model = request.find("model");
    if (!model.present()) return param_error("model", "model is missing: name the model to use");
    const auto name = model.as_string();
    if (!name || name->empty()) {
        return param_error("model", "model must be a non-empty string, not {}", describe(model));
    }
    return std::string(*name);
}

Result<TokenId> read_token_id(JsonView value, std::string_view param, std::string_view where,
                              const RequestRules& rules) {
    const auto id = value.as_uint();
    const std::uint64_t end =
        rules.vocab_size != 0 ? rules.vocab_size : std::numeric_limits<TokenId>::max();
    if (id && *id < end) return static_cast<TokenId>(*id);
    return param_error(param, "{} must be a token id from 0 to {}, not {}", where, end - 1,
                       describe(value));
}

void refuse_unless_empty(FieldReader& fields, std::string_view name, std::string_view hint) {
    if (is_empty_value(fields.view(name))) return;
    auto e = error(ErrorCode::kUnsupported, "{} is not served here; {}", name, hint);
    e.value().param = name;
    fields.fail(std::move(e));
}

void read_shared_fields(FieldReader& fields, const RequestRules& rules, GenerationFields& out) {
    if (auto model = read_model_field(fields.object())) {
        out.model = std::move(*model);
    } else {
        fields.fail(tl::unexpected<Error>(std::move(model.error())));
    }
    read_sampling(fields, rules, out.sampling);
    read_logit_bias(fields, rules, out.sampling);
    read_stop(fields, out.stop);
    read_stop_tokens(fields, rules, out.stop_token_ids);
    read_stream(fields, out);
    out.n = static_cast<std::uint32_t>(fields.integer("n", 1, rules.max_choices).value_or(1));
    out.min_tokens =
        static_cast<std::uint32_t>(fields.integer("min_tokens", 0, kMaxCount).value_or(0));
    out.ignore_eos = fields.boolean("ignore_eos").value_or(false);
    out.return_token_ids = fields.boolean("return_token_ids").value_or(false);
    read_output_constraint(fields, rules, out);
    read_body_hints(fields, rules, out.hints);
    if (out.hints.greedy) out.sampling.temperature = 0;
    refuse_unserved(fields);
}

}  // namespace stator::frontend
