#include "stator/engine/dialects/request_body.h"

#include <algorithm>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"

namespace stator::engine {

using codec::JsonWriter;
using protocol::GenerateRequest;
using protocol::OutputConstraint;
using protocol::SamplingParams;
using Kind = OutputConstraint::Kind;

namespace {

void token_ids(JsonWriter& w, const std::vector<protocol::TokenId>& ids) {
    w.begin_array();
    for (const auto id : ids) w.number(std::uint64_t{id});
    w.end_array();
}

/// A float as the number that its shortest text reads, not as the double that it is.
void real(JsonWriter& w, std::string_view key, float value) {
    w.key(key).raw(fmt::format("{}", value));
}

void logit_bias(JsonWriter& w, const SamplingParams& s) {
    if (s.logit_bias.empty()) return;
    w.key("logit_bias").begin_object();
    for (const auto& [token, bias] : s.logit_bias) real(w, std::to_string(token), bias);
    w.end_object();
}

/// Names that all engines share.
void distribution(JsonWriter& w, const SamplingParams& s) {
    real(w, "temperature", s.temperature);
    if (s.top_p != 1.0F) real(w, "top_p", s.top_p);
    if (s.top_k > 0) w.key("top_k").number(std::int64_t{s.top_k});
    if (s.min_p != 0.0F) real(w, "min_p", s.min_p);
    if (s.frequency_penalty != 0.0F) real(w, "frequency_penalty", s.frequency_penalty);
    if (s.presence_penalty != 0.0F) real(w, "presence_penalty", s.presence_penalty);
    if (s.repetition_penalty != 1.0F) real(w, "repetition_penalty", s.repetition_penalty);
}

bool prefills(const GenerateRequest& r) { return r.leg == protocol::Leg::kPrefill; }

/// Names that vLLM and TensorRT-LLM share.
void sampling(JsonWriter& w, const GenerateRequest& r) {
    const SamplingParams& s = r.sampling;
    distribution(w, s);
    // Engines take 63 bits.
    if (s.seed) w.key("seed").number(*s.seed & INT64_MAX);
    const std::uint32_t most = prefills(r) ? 1 : r.max_tokens;
    w.key("max_tokens").number(std::uint64_t{most});
    if (r.min_tokens > 0) w.key("min_tokens").number(std::uint64_t{std::min(r.min_tokens, most)});
    if (r.ignore_eos) w.key("ignore_eos").boolean(true);
    if (!r.stop_token_ids.empty()) {
        w.key("stop_token_ids");
        token_ids(w, r.stop_token_ids);
    }
}

tl::unexpected<Error> cannot(std::string_view what) {
    return error(ErrorCode::kUnsupported, "this engine can't do {}", what);
}

Result<void> vllm_constraint(JsonWriter& w, const OutputConstraint& c, bool guided) {
    if (!c.after.empty()) return cannot("a constraint that begins behind the thinking");
    if (!guided) w.key("structured_outputs").begin_object();
    switch (c.kind) {
        case Kind::kJsonObject:
            w.key(guided ? "guided_json" : "json_object");
            guided ? w.raw(R"({"type":"object"})") : w.boolean(true);
            break;
        case Kind::kJsonSchema:
            w.key(guided ? "guided_json" : "json").raw(c.text);
            break;
        case Kind::kRegex:
            w.key(guided ? "guided_regex" : "regex").string(c.text);
            break;
        case Kind::kChoice:
            w.key(guided ? "guided_choice" : "choice").raw(c.text);
            break;
        case Kind::kLark:
            w.key(guided ? "guided_grammar" : "grammar").string(c.text);
            break;
    }
    if (!guided) w.end_object();
    return {};
}

/// Of both of vLLM's routes, behind the sampling parameters.
void vllm_tail(JsonWriter& w, const GenerateRequest& r, const DialectOptions& o,
               std::string_view name) {
    if (r.cache_salt != 0) w.key("cache_salt").string(std::to_string(r.cache_salt));
    // There lower goes first.
    if (o.priorities && r.priority != 0) w.key("priority").number(-std::int64_t{r.priority});
    w.key("request_id").string(name);
    w.key("stream").boolean(!prefills(r));
    if (prefills(r)) return;
    w.key("stream_options").begin_object().key("include_usage").boolean(true).end_object();
}

void report_full(JsonWriter& w) { w.key("kv_cache_report_mode").string("full"); }

/// Of the completions route, which puts it among the sampling parameters' extra arguments.
void vllm_xargs(JsonWriter& w, const DialectOptions& o) {
    if (!o.report_full) return;
    w.key("vllm_xargs").begin_object();
    report_full(w);
    w.end_object();
}

/// What an engine that computes a prompt for another one is told. Its one token is thrown away, but
/// must not be an end: that would leave no KV.
void vllm_prefill_params(JsonWriter& w, const DialectOptions& o, std::string_view object) {
    if (o.connector == KvConnector::kVllmShared) return;
    w.key("kv_transfer_params").begin_object();
    w.key("do_remote_decode").boolean(true).key("do_remote_prefill").boolean(false);
    if (o.connector == KvConnector::kVllmMooncake) {
        codec::JsonDocument document;
        const auto minted = document.parse(object);
        const auto id = minted ? minted->find("transfer_id").as_string() : std::nullopt;
        w.key("transfer_id").string(id.value_or(""));
    } else {
        for (const std::string_view key :
             {"remote_engine_id", "remote_block_ids", "remote_host", "remote_port"}) {
            w.key(key).null();
        }
    }
    w.end_object();
}

void vllm_prefill_sampling(JsonWriter& w) {
    w.key("temperature").number(0).key("max_tokens").number(1).key("ignore_eos").boolean(true);
}

/// Of a decode leg: the KV that the other engine has.
void vllm_decode_params(JsonWriter& w, const DialectOptions& o, std::string_view object) {
    if (object.empty() || o.connector == KvConnector::kVllmShared) return;
    w.key("kv_transfer_params").raw(object);
}

/// It is read from the top of the body only in newer versions, and from here in all.
void vllm_extra_args(JsonWriter& w, const GenerateRequest& r, const DialectOptions& o,
                     std::string_view object, const BodyMedia* media) {
    const bool kv = o.connector != KvConnector::kVllmShared && (prefills(r) || !object.empty());
    const bool embeddings = media != nullptr && !media->ec_params.empty();
    if (!kv && !embeddings && !o.report_full) return;
    w.key("extra_args").begin_object();
    if (o.report_full) report_full(w);
    if (kv) prefills(r) ? vllm_prefill_params(w, o, object) : vllm_decode_params(w, o, object);
    if (embeddings) w.key("ec_transfer_params").raw(media->ec_params);
    w.end_object();
}

Result<void> vllm_generate(JsonWriter& w, const GenerateRequest& r, const DialectOptions& o,
                           std::string_view name, std::string_view object, const BodyMedia* media) {
    w.begin_object().key("model").string(r.adapter.empty() ? o.model : r.adapter);
    w.key("token_ids");
    token_ids(w, media != nullptr ? media->prompt : r.prompt);
    if (media != nullptr) w.key("features").raw(media->features);
    w.key("sampling_params").begin_object();
    if (prefills(r)) {
        vllm_prefill_sampling(w);
    } else {
        sampling(w, r);
        logit_bias(w, r.sampling);
        if (r.top_logprobs >= 0) w.key("logprobs").number(std::int64_t{r.top_logprobs});
        if (r.constraint) {
            if (auto ok = vllm_constraint(w, *r.constraint, o.guided_fields); !ok) return ok;
        }
    }
    vllm_extra_args(w, r, o, object, media);
    w.end_object();
    vllm_tail(w, r, o, name);
    w.end_object();
    return {};
}

Result<void> vllm_completions(JsonWriter& w, const GenerateRequest& r, const DialectOptions& o,
                              std::string_view name, std::string_view object) {
    w.begin_object().key("model").string(r.adapter.empty() ? o.model : r.adapter).key("prompt");
    token_ids(w, r.prompt);
    if (prefills(r)) {
        vllm_prefill_sampling(w);
        vllm_prefill_params(w, o, object);
        vllm_tail(w, r, o, name);
        w.end_object();
        return {};
    }
    sampling(w, r);
    logit_bias(w, r.sampling);
    if (r.top_logprobs >= 0) {
        // Else it names tokens by their texts, which may be those of several.
        w.key("logprobs").number(std::int64_t{r.top_logprobs});
        w.key("return_tokens_as_token_ids").boolean(true);
    }
    if (r.constraint) {
        if (auto ok = vllm_constraint(w, *r.constraint, o.guided_fields); !ok) return ok;
    }
    w.key("return_token_ids").boolean(true);
    vllm_decode_params(w, o, object);
    vllm_xargs(w, o);
    vllm_tail(w, r, o, name);
    w.end_object();
    return {};
}

Result<void> sglang_constraint(JsonWriter& w, const OutputConstraint& c) {
    if (!c.after.empty()) return cannot("a constraint that begins behind the thinking");
    switch (c.kind) {
        case Kind::kJsonObject:
            w.key("json_schema").string(R"({"type":"object"})");
            return {};
        case Kind::kJsonSchema:
            w.key("json_schema").string(c.text);
            return {};
        case Kind::kRegex:
            w.key("regex").string(c.text);
            return {};
        case Kind::kChoice:
            return cannot("a choice of texts");
        case Kind::kLark:
            return cannot("a grammar in Lark");
    }
    return {};
}

/// Both engines are told the same, and meet there.
void sglang_meeting(JsonWriter& w, std::string_view object, bool decodes) {
    codec::JsonDocument document;
    const auto minted = document.parse(object);
    if (!minted) return;
    for (const std::string_view key : {"bootstrap_host", "bootstrap_port", "bootstrap_room"}) {
        std::string value;
        minted->find(key).write_to(value);
        w.key(key).raw(value);
    }
    const auto rank = minted->find("disagg_prefill_dp_rank").as_uint();
    if (decodes && rank) w.key("disagg_prefill_dp_rank").number(std::uint64_t{*rank});
}

/// A prefill leg's is the decode leg's but for the stream: its token is the first of the output.
Result<void> sglang(JsonWriter& w, const GenerateRequest& r, const DialectOptions& o,
                    std::string_view name, std::string_view object, const BodyMedia* media) {
    const SamplingParams& s = r.sampling;
    w.begin_object().key("input_ids");
    token_ids(w, media != nullptr ? media->prompt : r.prompt);
    if (media != nullptr) {
        w.key("image_data").begin_array();
        for (const std::string& url : media->urls) w.string(url);
        w.end_array();
    }
    w.key("sampling_params").begin_object();
    distribution(w, s);
    if (s.seed) w.key("sampling_seed").number(*s.seed & INT64_MAX);
    w.key("max_new_tokens").number(std::uint64_t{r.max_tokens});
    if (r.min_tokens > 0) w.key("min_new_tokens").number(std::uint64_t{r.min_tokens});
    if (r.ignore_eos) w.key("ignore_eos").boolean(true);
    if (!r.stop_token_ids.empty()) {
        w.key("stop_token_ids");
        token_ids(w, r.stop_token_ids);
    }
    logit_bias(w, s);
    if (r.constraint) {
        if (auto ok = sglang_constraint(w, *r.constraint); !ok) return ok;
    }
    w.end_object();
    if (r.top_logprobs >= 0) {
        w.key("return_logprob").boolean(true);
        if (r.top_logprobs > 0) {
            w.key("top_logprobs_num").number(std::int64_t{r.top_logprobs});
        }
    }
    if (r.cache_salt != 0) w.key("cache_salt").string(std::to_string(r.cache_salt));
    if (!r.adapter.empty()) w.key("lora_path").string(r.adapter);
    if (o.priorities && r.priority != 0) {
        const std::int64_t priority = r.priority;
        w.key("priority").number(o.low_first ? -priority : priority);
    }
    // The name that old and new versions know.
    if (o.rank) w.key("data_parallel_rank").number(std::uint64_t{*o.rank});
    w.key("rid").string(name);
    if (!object.empty()) sglang_meeting(w, object, !prefills(r));
    w.key("stream").boolean(!prefills(r));
    w.end_object();
    return {};
}

/// No field more than it knows in every version from 1.0 on.
Result<void> trtllm(JsonWriter& w, const GenerateRequest& r, const DialectOptions& o,
                    std::string_view object) {
    if (r.top_logprobs >= 0) return cannot("log probabilities of token ids");
    if (r.cache_salt != 0) return cannot("a cache salt");
    if (!r.adapter.empty()) return cannot("an adapter by its name");
    w.begin_object().key("model").string(o.model).key("prompt");
    token_ids(w, r.prompt);
    sampling(w, r);
    logit_bias(w, r.sampling);
    if (r.constraint) {
        const OutputConstraint& c = *r.constraint;
        if (!c.after.empty()) return cannot("a constraint that begins behind the thinking");
        w.key("response_format").begin_object().key("type");
        if (c.kind == Kind::kJsonObject) {
            w.string("json_object");
        } else if (c.kind == Kind::kJsonSchema) {
            w.string("json").key("schema").raw(c.text);
        } else if (c.kind == Kind::kRegex) {
            w.string("regex").key("regex").string(c.text);
        } else {
            return cannot("a constraint of this kind");
        }
        w.end_object();
    }
    if (prefills(r)) {
        // Its token is the first of the output.
        w.key("disaggregated_params").begin_object();
        w.key("request_type").string("context_only").end_object();
    } else if (!object.empty()) {
        w.key("disaggregated_params").raw(object);
    }
    w.key("stream").boolean(!prefills(r));
    if (!prefills(r)) {
        w.key("stream_options").begin_object().key("include_usage").boolean(true).end_object();
    }
    w.end_object();
    return {};
}

}  // namespace

std::string_view path_of(Dialect dialect) {
    switch (dialect) {
        case Dialect::kVllmGenerate:
            return "/inference/v1/generate";
        case Dialect::kSglang:
            return "/generate";
        case Dialect::kVllmCompletions:
        case Dialect::kTrtllm:
            break;
    }
    return "/v1/completions";
}

Result<void> append_request_body(std::string& out, const GenerateRequest& request,
                                 const DialectOptions& options, std::string_view name,
                                 std::string_view object, const BodyMedia* media) {
    const bool takes_media =
        options.dialect == Dialect::kVllmGenerate || options.dialect == Dialect::kSglang;
    if (!request.media.empty() && (media == nullptr || !takes_media)) return cannot("media");
    if (prefills(request) && options.connector == KvConnector::kNone) {
        return error(ErrorCode::kUnsupported, "this engine has no connector to hand its KV over");
    }
    const std::size_t before = out.size();
    JsonWriter w(out);
    Result<void> done;
    switch (options.dialect) {
        case Dialect::kVllmGenerate:
            done = vllm_generate(w, request, options, name, object, media);
            break;
        case Dialect::kVllmCompletions:
            done = vllm_completions(w, request, options, name, object);
            break;
        case Dialect::kSglang:
            done = sglang(w, request, options, name, object, media);
            break;
        case Dialect::kTrtllm:
            done = trtllm(w, request, options, object);
            break;
    }
    if (!done) out.resize(before);
    return done;
}

}  // namespace stator::engine
