#include "stator/engine/dialects/kv_connector.h"

#include <fmt/format.h>

#include <algorithm>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/protocol/handoff.h"

namespace stator::engine {

using codec::JsonType;
using codec::JsonView;
using codec::JsonWriter;

namespace {

tl::unexpected<Error> no_object(std::string_view what) {
    return error(ErrorCode::kDataLoss, "the engine's KV can't be handed over: {}", what);
}

bool has_text(JsonView object, std::string_view key) {
    const auto text = object.find(key).as_string();
    return text && !text->empty();
}

bool has_port(JsonView object, std::string_view key) {
    const auto port = object.find(key).as_uint();
    return port && *port > 0 && *port <= UINT16_MAX;
}

/// All of these, or a decode worker dies or hangs.
Result<void> check_nixl(JsonView o) {
    if (o.find("do_remote_prefill").as_bool() != true) return no_object("no do_remote_prefill");
    for (const std::string_view key : {"remote_engine_id", "remote_request_id", "remote_host"}) {
        if (!has_text(o, key)) return no_object(fmt::format("no {}", key));
    }
    if (!has_port(o, "remote_port")) return no_object("no remote_port");
    // By group of the KV cache, and in older versions flat.
    const JsonView blocks = o.find("remote_block_ids");
    std::size_t count = 0;
    bool sound = blocks.type() == JsonType::kArray && blocks.size() > 0;
    const auto is_block = [&](JsonView v) {
        ++count;
        return v.as_uint().has_value();
    };
    blocks.each_element([&](std::size_t, JsonView v) {
        if (v.type() != JsonType::kArray) return sound = is_block(v);
        v.each_element([&](std::size_t, JsonView id) { return sound = is_block(id); });
        return sound;
    });
    if (!sound || count == 0) return no_object("no remote_block_ids");
    return {};
}

Result<void> check_trtllm(JsonView o) {
    if (o.find("request_type").as_string() != "generation_only") {
        return no_object("its request_type is not generation_only");
    }
    const JsonView first = o.find("first_gen_tokens");
    bool ids = first.type() == JsonType::kArray && first.size() > 0;
    first.each_element([&](std::size_t, JsonView v) { return ids = v.as_uint().has_value(); });
    if (!ids) return no_object("no first_gen_tokens");
    if (!o.find("ctx_request_id").as_uint() && !o.find("disagg_request_id").as_uint()) {
        return no_object("no ctx_request_id");
    }
    if (!has_text(o, "encoded_opaque_state") && o.find("ctx_info_endpoint").is_null()) {
        return no_object("neither encoded_opaque_state nor ctx_info_endpoint");
    }
    return {};
}

Result<void> check_root(KvConnector connector, JsonView o) {
    if (o.type() != JsonType::kObject) return no_object("no JSON object");
    switch (connector) {
        case KvConnector::kNone:
            return no_object("it has no connector");
        case KvConnector::kVllmNixl:
            return check_nixl(o);
        case KvConnector::kVllmShared:
            if (o.size() > 0) return no_object("an object where none is needed");
            return {};
        case KvConnector::kVllmMooncake:
            for (const std::string_view key :
                 {"transfer_id", "remote_engine_id", "remote_bootstrap_addr"}) {
                if (!has_text(o, key)) return no_object(fmt::format("no {}", key));
            }
            return {};
        case KvConnector::kSglang:
            if (!has_text(o, "bootstrap_host")) return no_object("no bootstrap_host");
            if (!has_port(o, "bootstrap_port")) return no_object("no bootstrap_port");
            if (!o.find("bootstrap_room").as_uint()) return no_object("no bootstrap_room");
            return {};
        case KvConnector::kTrtllm:
            return check_trtllm(o);
    }
    return no_object("it has no connector");
}

/// What the engine says, verbatim but for white space: unknown keys are for its peer.
std::string text_of(JsonView v) {
    std::string out;
    v.write_to(out);
    return out;
}

/// TensorRT-LLM's, as the other engine is to get it.
std::string generation_only(JsonView params) {
    std::string out;
    JsonWriter w(out);
    w.begin_object().key("request_type").string("generation_only");
    params.each_member([&](std::string_view key, JsonView v) {
        if (key == "request_type") return true;
        w.key(key).raw(text_of(v));
        return true;
    });
    w.end_object();
    return out;
}

std::optional<std::uint32_t> count_of(JsonView v) {
    const auto n = v.as_uint();
    if (!n) return {};
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(*n, UINT32_MAX));
}

/// The one choice of an answer in OpenAI's shape; what it ended for.
Result<JsonView> only_choice(JsonView root) {
    JsonView out;
    const JsonView choices = root.find("choices");
    choices.each_element([&](std::size_t, JsonView v) {
        out = v;
        return false;
    });
    if (choices.size() != 1) return no_object("its answer has not one choice");
    return out;
}

Result<PrefillAnswer> vllm_answer(KvConnector connector, JsonView root, std::size_t prompt) {
    const auto choice = only_choice(root);
    if (!choice) return tl::unexpected(choice.error());
    // Aborted or failed ones leave nothing.
    const auto finish = choice->find("finish_reason").as_string();
    if (finish != "length") return no_object("it did not end by its length");
    PrefillAnswer out;
    out.cached_tokens =
        count_of(root.find("usage").find("prompt_tokens_details").find("cached_tokens"));
    if (connector == KvConnector::kVllmShared) {
        out.object = "{}";
        return out;
    }
    const JsonView params = root.find("kv_transfer_params");
    if (params.is_null()) return no_object("it has none (is its connector on?)");
    if (auto ok = check_root(connector, params); !ok) return tl::unexpected(std::move(ok.error()));
    const JsonView tokens = params.find("remote_num_tokens");
    if (!tokens.is_null() && tokens.as_uint() != prompt) return no_object("of another prompt");
    const auto told = count_of(params.find("remote_prefill_cached_tokens"));
    if (told) out.cached_tokens = told;
    out.object = text_of(params);
    return out;
}

Result<PrefillAnswer> trtllm_answer(JsonView root) {
    const auto choice = only_choice(root);
    if (!choice) return tl::unexpected(choice.error());
    const auto finish = choice->find("finish_reason").as_string();
    if (finish && *finish != "length" && *finish != "not_finished") {
        return no_object("it ended with its first token");
    }
    const JsonView params = choice->find("disaggregated_params");
    if (params.type() != JsonType::kObject) return no_object("no disaggregated_params");
    PrefillAnswer out;
    out.object = generation_only(params);
    out.cached_tokens =
        count_of(root.find("usage").find("prompt_tokens_details").find("cached_tokens"));
    if (auto ok = check_object(KvConnector::kTrtllm, out.object); !ok) {
        return tl::unexpected(std::move(ok.error()));
    }
    return out;
}

/// It has left the KV for its peer, or has had it fetched.
Result<PrefillAnswer> mooncake_answer(JsonView root) {
    const auto choice = only_choice(root);
    if (!choice) return tl::unexpected(choice.error());
    if (choice->find("finish_reason").as_string() != "length") {
        return no_object("it did not end by its length");
    }
    PrefillAnswer out;
    out.cached_tokens =
        count_of(root.find("usage").find("prompt_tokens_details").find("cached_tokens"));
    return out;
}

Result<PrefillAnswer> sglang_answer(JsonView root) {
    const JsonView meta = root.find("meta_info");
    if (meta.type() != JsonType::kObject) return no_object("its answer has no meta_info");
    if (meta.find("finish_reason").find("type").as_string() == "abort") {
        const auto why = meta.find("finish_reason").find("message").as_string();
        return no_object(why.value_or("it was aborted"));
    }
    PrefillAnswer out;
    out.cached_tokens = count_of(meta.find("cached_tokens"));
    return out;
}

}  // namespace

std::string_view method_of(KvConnector connector) {
    switch (connector) {
        case KvConnector::kNone:
            break;
        case KvConnector::kVllmNixl:
            return "vllm/nixl";
        case KvConnector::kVllmShared:
            return "vllm/shared";
        case KvConnector::kVllmMooncake:
            return "vllm/mooncake";
        case KvConnector::kSglang:
            return "sglang/bootstrap";
        case KvConnector::kTrtllm:
            return "trtllm/disaggregated";
    }
    return {};
}

std::optional<KvConnector> kv_connector(EngineKind kind, std::string_view name) {
    switch (kind) {
        case EngineKind::kVllm:
            if (name == "nixl" || name == "NixlConnector") return KvConnector::kVllmNixl;
            if (name == "mooncake" || name == "MooncakeConnector") {
                return KvConnector::kVllmMooncake;
            }
            if (name == "shared" || name == "ExampleConnector" ||
                name == "SharedStorageConnector" || name == "LMCacheConnectorV1") {
                return KvConnector::kVllmShared;
            }
            return {};
        case EngineKind::kSglang:
            return KvConnector::kSglang;
        case EngineKind::kTrtllm:
            return KvConnector::kTrtllm;
        case EngineKind::kOpenai:
            break;
    }
    return {};
}

std::string kv_layout_of(KvConnector connector, std::string_view version) {
    std::string out(method_of(connector));
    if (!out.empty() && !version.empty()) out.append("/").append(version);
    return out;
}

bool is_early(KvConnector connector) {
    return connector == KvConnector::kVllmMooncake || connector == KvConnector::kSglang;
}

std::string mint_object(KvConnector connector, const MeetingPlace& place, std::uint64_t random) {
    std::string out;
    JsonWriter w(out);
    w.begin_object();
    if (connector == KvConnector::kSglang) {
        w.key("bootstrap_host").string(place.host);
        w.key("bootstrap_port").number(unsigned{place.port});
        w.key("bootstrap_room").number(random & INT64_MAX);  // it takes 63 bits
        // Else the room's number says which rank it is.
        if (place.rank) w.key("disagg_prefill_dp_rank").number(*place.rank);
    } else if (connector == KvConnector::kVllmMooncake) {
        w.key("do_remote_prefill").boolean(true).key("do_remote_decode").boolean(false);
        w.key("transfer_id").string(fmt::format("xfer-{:016x}", random));
        w.key("remote_engine_id").string(place.engine_id);
        const bool v6 = place.host.find(':') != std::string::npos && !place.host.starts_with('[');
        w.key("remote_bootstrap_addr")
            .string(fmt::format("http://{}{}{}:{}", v6 ? "[" : "", place.host, v6 ? "]" : "",
                                place.port));
    }
    w.end_object();
    return out;
}

Result<void> check_object(KvConnector connector, std::string_view object) {
    if (object.size() > protocol::kMaxObjectBytes) return no_object("its object is too large");
    codec::JsonDocument document;
    const auto root = document.parse(object);
    if (!root) return no_object(root.error().message);
    return check_root(connector, *root);
}

Result<PrefillAnswer> read_prefill_answer(KvConnector connector, std::string_view body,
                                          std::size_t prompt_tokens) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return no_object(root.error().message);
    Result<PrefillAnswer> out = PrefillAnswer{};
    switch (connector) {
        case KvConnector::kNone:
            return no_object("it has no connector");
        case KvConnector::kVllmNixl:
        case KvConnector::kVllmShared:
            out = vllm_answer(connector, *root, prompt_tokens);
            break;
        case KvConnector::kTrtllm:
            out = trtllm_answer(*root);
            break;
        case KvConnector::kVllmMooncake:
            out = mooncake_answer(*root);
            break;
        case KvConnector::kSglang:
            out = sglang_answer(*root);
            break;
    }
    if (out && out->object.size() > protocol::kMaxObjectBytes) {
        return no_object("its object is too large");
    }
    return out;
}

Result<std::string> read_mooncake_engine(std::string_view body, std::uint32_t rank) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    const JsonView of_rank = root ? root->find(std::to_string(rank)) : JsonView{};
    const auto id = of_rank.find("engine_id").as_string();
    if (!id || id->empty()) {
        return error(ErrorCode::kInvalidArgument, "Mooncake's /query names no engine of rank {}",
                     rank);
    }
    return std::string(*id);
}

}  // namespace stator::engine
