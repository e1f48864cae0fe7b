#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::engine {

enum class EngineKind : std::uint8_t { kVllm, kSglang, kTrtllm, kOpenai };
/// "vllm", "sglang", "trtllm", "openai"; as in `--engine vllm=http://…`.
[[nodiscard]] std::string_view to_string(EngineKind kind);
[[nodiscard]] std::optional<EngineKind> engine_kind(std::string_view name);

struct ServedModel {
    std::string name;
    std::string parent;                ///< of an adapter: the model it belongs to
    std::string root;                  ///< where the engine has it from
    std::uint32_t context_tokens = 0;  ///< 0 = not said
};

/// Of GET /v1/models. kInvalidArgument: not such a list, or an empty one.
struct ModelList {
    std::vector<ServedModel> models;
    std::optional<EngineKind> kind;  ///< from `owned_by`
};
[[nodiscard]] Result<ModelList> read_model_list(std::string_view body);

/// Of GET /version: {"version":"0.32.0"}.
[[nodiscard]] Result<std::string> read_version(std::string_view body);
/// Whether a version (dotted numbers, whatever behind them) is at least this one.
[[nodiscard]] bool version_at_least(std::string_view version, std::uint32_t major,
                                    std::uint32_t minor);

/// Where one rank publishes the events of its cache.
struct KvEventSource {
    std::uint32_t rank = 0;
    std::string endpoint;  ///< "tcp://host:port"
    std::string replay;    ///< empty: none
    std::string topic;
    bool operator==(const KvEventSource&) const = default;
};
/// Of vLLM's GET /kv_event_sources (0.3x): by rank. Addresses that name no host ("*", "0.0.0.0",
/// "::") get `host`, the one that the engine was found by. Sources that are switched off, or that
/// wait to be connected to from elsewhere, are left out. kInvalidArgument: not such a list.
[[nodiscard]] Result<std::vector<KvEventSource>> read_event_sources(std::string_view body,
                                                                    std::string_view host);
/// The address of a rank, where an engine was told one address for all: the port counted up.
/// kInvalidArgument: no "tcp://host:port".
[[nodiscard]] Result<std::string> endpoint_of_rank(std::string_view endpoint, std::string_view host,
                                                   std::uint32_t rank);

/// Of SGLang's GET /server_info (older: /get_server_info).
struct SglangServerInfo {
    std::string version;
    std::string model;
    std::string role;  ///< disaggregation_mode: "prefill", "decode"; empty: neither
    std::uint32_t page_tokens = 1;
    std::uint32_t ranks = 1;
    std::uint64_t kv_tokens = 0;
    std::uint32_t context_tokens = 0;
    std::optional<std::uint32_t> bootstrap_port;
    std::vector<KvEventSource> sources;  ///< empty: events are off
    bool lora_hidden = true;  ///< its events do not tell adapters apart (format "default")
    /// It was started to heed priorities; of equal requests the one with the lower number goes
    /// first.
    bool priorities = false;
    bool low_first = false;
};
[[nodiscard]] Result<SglangServerInfo> read_sglang_server_info(std::string_view body,
                                                               std::string_view host);

}  // namespace stator::engine
