#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/log.h"

namespace stator::config {

/// A number of bytes; its own type so that "32M" is read as a size.
struct ByteSize {
    std::uint64_t bytes = 0;
    constexpr auto operator<=>(const ByteSize&) const = default;
};

/// kAttached: unmodified engines in processes of their own.
enum class EngineKind : std::uint8_t { kLlama, kEcho, kMock, kAttached };

/// "vllm=http://10.0.0.7:8000".
struct AttachedEngine {
    std::string kind;  ///< "vllm", "sglang", "trtllm", "openai"
    std::string url;
    bool operator==(const AttachedEngine&) const = default;
};

/// What the program is told, as plain values; the member initialisers are the defaults. Meanings,
/// ranges and names are in the table of options (options.cc), which is also where a new member has
/// to be added.
struct ModelSettings {
    std::string path;
    std::string folder;
    std::string mmproj;
    std::string served_name;
    std::vector<std::string> aliases;
    std::string tool_parser = "auto";
    std::string reasoning_parser = "auto";
    bool operator==(const ModelSettings&) const = default;
};

struct ServerSettings {
    std::string host = "127.0.0.1";
    std::uint32_t port = 8000;
    std::string port_file;
    std::uint32_t threads = 0;
    std::chrono::milliseconds grace{30'000};
    std::vector<std::string> cors_origins;
    bool operator==(const ServerSettings&) const = default;
};

struct AuthSettings {
    std::string api_key_file;
    bool allow_unauthenticated = false;
    bool operator==(const AuthSettings&) const = default;
};

struct EngineSettings {
    EngineKind kind = EngineKind::kLlama;
    std::vector<AttachedEngine> attached;  ///< at least one, with kAttached
    std::vector<std::string> events;       ///< by attached engine
    std::vector<std::string> replay;       ///< likewise
    std::string key_file;
    std::optional<std::uint32_t> dp_ranks;
    std::string connector;
    std::string bootstrap;
    bool priority = false;
    std::string trtllm_store;
    std::chrono::milliseconds wait{0};
    std::chrono::milliseconds canary{30'000};
    std::chrono::milliseconds canary_within{30'000};
    std::uint32_t threads = 0;
    std::uint32_t context = 0;
    std::uint32_t max_sequence = 0;
    std::optional<std::uint32_t> max_running;
    std::optional<std::uint32_t> max_waiting;
    std::optional<std::uint32_t> step_tokens;
    std::optional<std::uint32_t> block_tokens;
    bool prefix_cache = true;
    ByteSize prefix_cache_size{512ULL * 1024 * 1024};
    ByteSize encoder_cache_size{256ULL * 1024 * 1024};
    std::int32_t gpu_layers = -1;
    std::uint64_t seed = 0;
    bool operator==(const EngineSettings&) const = default;
};

/// Unset: what the model file recommends, else OpenAI's default.
struct SamplingSettings {
    std::optional<double> temperature;
    std::optional<double> top_p;
    std::optional<std::int32_t> top_k;
    std::optional<double> min_p;
    bool operator==(const SamplingSettings&) const = default;
};

struct LimitSettings {
    std::uint32_t max_connections = 10'000;
    std::uint32_t max_inflight = 4096;
    std::uint32_t max_choices = 128;
    std::uint32_t max_headers = 100;
    ByteSize max_header_size{16ULL * 1024};
    ByteSize max_body_size{32ULL * 1024 * 1024};
    ByteSize max_buffered_bodies{512ULL * 1024 * 1024};
    ByteSize max_unsent_output{4ULL * 1024 * 1024};
    std::chrono::milliseconds header_timeout{10'000};
    std::chrono::milliseconds body_timeout{60'000};
    std::chrono::milliseconds idle_timeout{75'000};
    std::chrono::milliseconds write_timeout{60'000};
    std::chrono::milliseconds request_timeout{0};
    bool operator==(const LimitSettings&) const = default;
};

/// Images and videos in messages.
struct MediaSettings {
    bool allow_http = false;
    bool allow_private = false;
    std::vector<std::string> hosts;
    std::uint32_t redirects = 0;
    std::chrono::milliseconds fetch_timeout{15'000};
    std::uint32_t max_items = 16;
    ByteSize max_size{16ULL * 1024 * 1024};
    std::uint32_t max_pixels = 20U * 1024 * 1024;
    std::uint32_t video_frames = 8;
    std::chrono::milliseconds video_length{600'000};
    std::chrono::milliseconds decode_timeout{10'000};
    ByteSize cache_size{128ULL * 1024 * 1024};
    std::string helper;
    std::string video_helper;
    bool operator==(const MediaSettings&) const = default;
};

struct LogSettings {
    LogLevel level = LogLevel::kInfo;
    LogFormat format = LogFormat::kText;
    bool access = true;
    bool operator==(const LogSettings&) const = default;
};

struct EchoSettings {
    std::uint32_t step_us = 0;
    std::uint32_t tokens_per_step = 1;
    std::uint32_t fail_after = 0;
    bool operator==(const EchoSettings&) const = default;
};

/// The mock engine; limits that other engines have, too, are in EngineSettings.
struct MockSettings {
    std::string preset = "llama-3.1-8b-fp8-h100";
    std::string step_time;
    double speedup = 1.0;
    double noise = 0.0;
    std::uint32_t mean_output = 256;
    std::uint32_t ranks = 1;
    std::optional<std::uint32_t> blocks;
    std::uint32_t host_blocks = 0;
    double host_bandwidth = 50.0;
    std::uint32_t disk_blocks = 0;
    double disk_bandwidth = 5.0;
    std::optional<std::uint64_t> kv_bytes;
    std::optional<double> image_ms;
    std::optional<double> image_token_us;
    std::uint32_t image_pixels = 784;
    std::uint32_t image_tokens = 1024;
    std::uint32_t embedding_width = 1024;
    std::string faults;
    std::uint32_t threads = 1;
    bool operator==(const MockSettings&) const = default;
};

/// How processes of a fleet trust each other: frontends, workers.
struct LinkSettings {
    std::string secret_file;
    std::string certificate;
    std::string key;
    std::string authorities;
    std::chrono::milliseconds silent_after{3'000};
    std::chrono::milliseconds lost_after{10'000};
    bool operator==(const LinkSettings&) const = default;
};

/// How a cluster's API server is reached.
struct KubeSettings {
    std::string api;
    std::string token_file;
    std::string ca_file;
    bool operator==(const KubeSettings&) const = default;
};

/// What a frontend does to find and use workers.
struct FleetSettings {
    std::vector<std::string> discover;
    std::vector<std::string> upstreams;
    std::string upstream_key_file;
    std::vector<std::string> aliases;
    std::vector<std::string> pool_shares;
    std::optional<double> new_pool_share;
    std::uint32_t max_migrations = 3;
    std::chrono::milliseconds wait_for_worker{2'000};
    std::chrono::milliseconds canary_after{5'000};
    std::chrono::milliseconds canary_within{10'000};
    std::string artifact_folder;
    ByteSize artifact_size{1024ULL * 1024 * 1024};
    bool operator==(const FleetSettings&) const = default;
};

/// How a frontend chooses workers.
struct RouterSettings {
    std::string policy = "expected-ttft";
    double work_weight = 0.3;
    double itl_weight = 0.05;
    double queue_weight = 1.0;
    double occupancy_weight = 0.02;
    double preference_weight = 0.5;
    double error_band = 0.25;
    double overlap_weight = 1.0;
    double temperature = 0.0;
    std::uint32_t prefix_blocks = 2;
    std::chrono::milliseconds session_slack{500};
    std::chrono::milliseconds session_ttl{600'000};
    std::string disaggregation = "conditional";
    double split_itl_weight = 0.5;
    bool kv_events = true;
    std::chrono::milliseconds predict_ttl{120'000};
    ByteSize index_size{4ULL * 1024 * 1024 * 1024};
    double index_tenant_share = 25;
    std::string hints = "local";
    std::chrono::milliseconds hold{500};
    std::uint32_t queue = 2048;
    std::uint32_t queue_per_tenant = 1024;
    std::chrono::milliseconds promote_after{30'000};
    std::vector<std::string> tenants;
    bool replica_sync = true;
    std::vector<std::string> peers;
    std::string events;
    std::string events_advertise;
    std::string remote;
    std::string remote_key_file;
    std::chrono::milliseconds remote_timeout{200};
    bool operator==(const RouterSettings&) const = default;
};

/// What a worker process says of itself and where it can be reached.
struct WorkerSettings {
    std::string name;
    std::uint32_t count = 1;
    std::string listen;
    std::string advertise;
    std::string announce;
    std::vector<std::string> roles{"aggregated"};
    std::vector<std::string> labels;
    std::string http;
    std::string events;
    std::string events_advertise;
    std::string events_key_file;
    std::string events_allow_file;
    bool operator==(const WorkerSettings&) const = default;
};

/// How workers hand each other what a leg of a request has made.
struct TransferSettings {
    std::vector<std::string> methods{"shm", "nixl", "tcp"};
    ByteSize size{1024ULL * 1024 * 1024};
    ByteSize incoming_size{2048ULL * 1024 * 1024};
    std::chrono::milliseconds lease{30'000};
    std::chrono::milliseconds timeout{5'000};
    std::string listen;
    std::string advertise;
    std::uint32_t connections = 4;
    bool checksums = true;
    std::string nixl_library;
    bool operator==(const TransferSettings&) const = default;
};

/// Worker processes that `stator serve` starts and keeps running.
struct SupervisorSettings {
    std::uint32_t workers = 0;
    std::string topology;
    std::chrono::milliseconds restart_min{200};
    std::chrono::milliseconds restart_max{10'000};
    bool operator==(const SupervisorSettings&) const = default;
};

enum class PlannerMode : std::uint8_t { kOff, kAdvise, kAct };

/// Sizing the fleet ahead of the load.
struct PlannerSettings {
    PlannerMode mode = PlannerMode::kOff;
    std::string model;
    std::vector<std::string> workers;
    std::uint32_t devices = 0;
    std::chrono::milliseconds ttft{2'000};
    std::chrono::milliseconds itl{50};
    double share = 0.99;
    std::chrono::milliseconds interval{10'000};
    std::chrono::milliseconds start_up{60'000};
    std::string predictor = "mix";
    double quantile = 0.9;
    std::chrono::milliseconds down_after{180'000};
    std::chrono::milliseconds cooldown{60'000};
    bool to_zero = false;
    std::string profile;
    std::string webhook;
    std::string webhook_key_file;
    std::vector<std::string> scrape;
    std::string scrape_key_file;
    std::string http = "127.0.0.1:8002";
    std::string lease;
    bool operator==(const PlannerSettings&) const = default;
};

/// Who in a pod is told which worker was chosen. The order is that of the names in option_table.h.
enum class PodHints : std::uint8_t { kNone, kStator, kDynamo, kBoth };

/// How a gateway sends bodies. In ext_proc's order, as in option_table.h.
enum class GatewayBodies : std::uint8_t {
    kNone,
    kStreamed,
    kBuffered,
    kBufferedPartial,
    kFullDuplex,
};

/// The endpoint picker for Gateway API gateways.
struct GatewaySettings {
    std::string listen = "127.0.0.1:9002";
    std::uint16_t target_port = 0;
    std::uint32_t fallbacks = 2;
    PodHints hints = PodHints::kNone;
    std::vector<std::string> objectives;
    GatewayBodies request_bodies = GatewayBodies::kFullDuplex;
    GatewayBodies response_bodies = GatewayBodies::kFullDuplex;
    std::chrono::milliseconds drain{2'000};
    std::string certificate_file;
    std::string key_file;
    bool operator==(const GatewaySettings&) const = default;
};

struct Settings {
    ModelSettings model;
    ServerSettings server;
    AuthSettings auth;
    EngineSettings engine;
    SamplingSettings sampling;
    LimitSettings limits;
    MediaSettings media;
    LogSettings log;
    EchoSettings echo;
    MockSettings mock;
    LinkSettings link;
    FleetSettings fleet;
    KubeSettings kube;
    RouterSettings router;
    WorkerSettings worker;
    TransferSettings transfer;
    SupervisorSettings supervisor;
    GatewaySettings gateway;
    PlannerSettings planner;
    bool operator==(const Settings&) const = default;
};

}  // namespace stator::config
