#include "stator/engine/dialects/engine_facts.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "stator/codec/json.h"

namespace stator::engine {

using codec::JsonType;
using codec::JsonView;

namespace {

constexpr std::array kKinds{
    std::pair("vllm", EngineKind::kVllm), std::pair("sglang", EngineKind::kSglang),
    std::pair("trtllm", EngineKind::kTrtllm), std::pair("openai", EngineKind::kOpenai)};
constexpr std::uint32_t kMostRanks = 1024;
constexpr std::size_t kMostModels = 4096;

std::string text_of(JsonView v) { return std::string(v.as_string().value_or("")); }

std::uint32_t u32_of(JsonView v) {
    const auto n = v.as_uint();
    return n && *n <= UINT32_MAX ? static_cast<std::uint32_t>(*n) : 0;
}

struct Endpoint {
    std::string host;
    std::uint32_t port = 0;
};

std::optional<Endpoint> parse_endpoint(std::string_view text) {
    constexpr std::string_view kScheme = "tcp://";
    const std::size_t colon = text.rfind(':');
    if (!text.starts_with(kScheme) || colon < kScheme.size()) return {};
    Endpoint out{.host = std::string(text.substr(kScheme.size(), colon - kScheme.size()))};
    const std::string_view port = text.substr(colon + 1);
    const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (ec != std::errc() || end != port.data() + port.size() || out.port > 65'535) return {};
    return out;
}

/// Where the engine listens on all it has, others reach it by the host it was found by.
std::string with_host(const Endpoint& e, std::string_view host) {
    const bool any = e.host.empty() || e.host == "*" || e.host == "0.0.0.0" || e.host == "::" ||
                     e.host == "[::]";
    std::string name(any ? host : std::string_view(e.host));
    if (name.find(':') != std::string::npos && !name.starts_with('[')) name = "[" + name + "]";
    return fmt::format("tcp://{}:{}", name, e.port);
}

}  // namespace

std::string_view to_string(EngineKind kind) {
    for (const auto& [name, k] : kKinds) {
        if (k == kind) return name;
    }
    return "openai";
}

std::optional<EngineKind> engine_kind(std::string_view name) {
    for (const auto& [known, kind] : kKinds) {
        if (known == name) return kind;
    }
    return {};
}

Result<ModelList> read_model_list(std::string_view body) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    ModelList out;
    root->find("data").each_element([&](std::size_t, JsonView m) {
        if (out.models.size() >= kMostModels) return false;
        const auto id = m.find("id").as_string();
        if (!id) return true;
        out.models.push_back({.name = std::string(*id),
                              .parent = text_of(m.find("parent")),
                              .root = text_of(m.find("root")),
                              .context_tokens = u32_of(m.find("max_model_len"))});
        const auto owner = m.find("owned_by").as_string().value_or("");
        if (owner == "tensorrt_llm") out.kind = EngineKind::kTrtllm;
        if (const auto kind = engine_kind(owner); kind && *kind != EngineKind::kOpenai) {
            out.kind = kind;
        }
        return true;
    });
    if (out.models.empty()) {
        return error(ErrorCode::kInvalidArgument, "a list of models that names none");
    }
    return out;
}

Result<std::string> read_version(std::string_view body) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    const auto version = root->find("version").as_string();
    if (!version || version->empty()) {
        return error(ErrorCode::kInvalidArgument, "an answer without a version");
    }
    return std::string(*version);
}

bool version_at_least(std::string_view version, std::uint32_t major, std::uint32_t minor) {
    std::uint32_t first = 0;
    std::uint32_t second = 0;
    if (version.starts_with('v')) version.remove_prefix(1);
    const char* const last = version.data() + version.size();
    const auto [dot, ec] = std::from_chars(version.data(), last, first);
    if (ec != std::errc()) return false;
    if (dot != last && *dot == '.') std::from_chars(dot + 1, last, second);
    return std::pair(first, second) >= std::pair(major, minor);
}

Result<std::vector<KvEventSource>> read_event_sources(std::string_view body,
                                                      std::string_view host) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    if (root->type() != JsonType::kObject) {
        return error(ErrorCode::kInvalidArgument, "sources of KV events that are no object");
    }
    std::vector<KvEventSource> out;
    root->each_member([&](std::string_view key, JsonView v) {
        std::uint32_t rank = 0;
        const auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), rank);
        const auto endpoint = parse_endpoint(v.find("endpoint").as_string().value_or(""));
        if (ec != std::errc() || end != key.data() + key.size() || rank >= kMostRanks ||
            !endpoint || !v.find("enable_kv_cache_events").as_bool().value_or(true) ||
            v.find("publisher").as_string().value_or("zmq") != "zmq") {
            return true;
        }
        const auto replay = parse_endpoint(v.find("replay_endpoint").as_string().value_or(""));
        out.push_back({.rank = rank,
                       .endpoint = with_host(*endpoint, host),
                       .replay = replay ? with_host(*replay, host) : std::string(),
                       .topic = text_of(v.find("topic"))});
        return true;
    });
    std::ranges::sort(out, {}, &KvEventSource::rank);
    return out;
}

Result<std::string> endpoint_of_rank(std::string_view endpoint, std::string_view host,
                                     std::uint32_t rank) {
    auto parsed = parse_endpoint(endpoint);
    if (!parsed || rank >= kMostRanks || parsed->port + rank > 65'535) {
        return error(ErrorCode::kInvalidArgument,
                     "\"{}\" is not a tcp://host:port that {} ranks can count up from", endpoint,
                     rank + 1);
    }
    parsed->port += rank;
    return with_host(*parsed, host);
}

Result<SglangServerInfo> read_sglang_server_info(std::string_view body, std::string_view host) {
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (!root) return tl::unexpected<Error>(root.error());
    if (root->type() != JsonType::kObject || !root->find("page_size").present()) {
        return error(ErrorCode::kInvalidArgument, "no server information of SGLang");
    }
    SglangServerInfo out;
    out.version = text_of(root->find("version"));
    out.model = text_of(root->find("served_model_name"));
    if (out.model.empty()) out.model = text_of(root->find("model_path"));
    const auto role = root->find("disaggregation_mode").as_string().value_or("");
    if (role == "prefill" || role == "decode") out.role = role;
    out.page_tokens = std::max(1U, u32_of(root->find("page_size")));
    out.ranks = std::clamp(u32_of(root->find("dp_size")), 1U, kMostRanks);
    out.kv_tokens = root->find("max_total_num_tokens").as_uint().value_or(0);
    out.context_tokens = u32_of(root->find("context_length"));
    out.priorities = root->find("enable_priority_scheduling").as_bool().value_or(false);
    out.low_first = root->find("schedule_low_priority_values_first").as_bool().value_or(false);
    const JsonView port = root->find("disaggregation_bootstrap_port");
    if (!out.role.empty() && port.as_uint()) out.bootstrap_port = u32_of(port);
    // In new versions what is meant, else what was asked for: a JSON text, or null.
    const JsonView events = root->find("kv_events");
    if (events.type() == JsonType::kObject) {
        const auto named = text_of(events.find("endpoint_host"));
        const auto base = u32_of(events.find("endpoint_port_base"));
        const auto replay = u32_of(events.find("replay_endpoint_port_base"));
        const std::uint32_t ranks = std::clamp(u32_of(events.find("dp_size")), 1U, kMostRanks);
        for (std::uint32_t r = 0; base != 0 && r < ranks; ++r) {
            KvEventSource& source = out.sources.emplace_back();
            source.rank = r;
            source.endpoint = with_host({.host = named, .port = base + r}, host);
            if (replay != 0) source.replay = with_host({.host = named, .port = replay + r}, host);
            source.topic = text_of(events.find("topic"));
        }
        out.lora_hidden = events.find("format").as_string().value_or("default") != "dynamo";
        return out;
    }
    codec::JsonDocument inner;
    const auto config = root->find("kv_events_config").as_string();
    const auto asked = config ? inner.parse(*config) : Result<JsonView>(JsonView());
    if (!asked || asked->find("publisher").as_string().value_or("null") != "zmq") return out;
    out.lora_hidden = asked->find("format").as_string().value_or("default") != "dynamo";
    const std::string endpoint = text_of(asked->find("endpoint"));
    const std::string replay = text_of(asked->find("replay_endpoint"));
    for (std::uint32_t r = 0; r < out.ranks; ++r) {
        auto at = endpoint_of_rank(endpoint.empty() ? "tcp://*:5557" : endpoint, host, r);
        if (!at) break;
        KvEventSource& source = out.sources.emplace_back();
        source.rank = r;
        source.endpoint = std::move(*at);
        source.replay = endpoint_of_rank(replay, host, r).value_or("");
        source.topic = text_of(asked->find("topic"));
    }
    return out;
}

}  // namespace stator::engine
