#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/strong.h"

namespace stator::protocol {

/// What a worker does in the life of a request.
enum class Role : std::uint8_t { kAggregated = 1, kPrefill, kDecode, kEncode };
std::string_view to_string(Role role);

/// One life of a worker process: random, so that a worker restarted on the same address can't be
/// taken for its former self.
using Incarnation = Strong<std::uint64_t, struct IncarnationTag>;

/// A file that workers hand out by its digest: what the name says can be checked by who gets it.
struct Artifact {
    std::string kind;    ///< "gguf-vocabulary", "byte-tokenizer", "chat-template"
    std::string sha256;  ///< 64 lower-case hex digits
    std::uint64_t bytes = 0;
    bool operator==(const Artifact&) const = default;
};

/// What the model file recommends, where it says so.
struct RecommendedSampling {
    std::optional<float> temperature;
    std::optional<float> top_p;
    std::optional<std::int32_t> top_k;
    std::optional<float> min_p;
    bool operator==(const RecommendedSampling&) const = default;
};

/// What a worker serves. Two ranks are interchangeable, and belong to one pool, exactly if their
/// cards are the same_pool().
struct ModelCard {
    std::string name;                  ///< under which clients ask for it
    std::vector<std::string> aliases;  ///< not part of the identity
    std::string title;                 ///< for people; not part of the identity
    std::string weights_digest;        ///< "sha256-sample:<64 hex>"; equal digests = equal weights
    Artifact tokenizer;
    std::optional<Artifact> chat_template;  ///< none: no chat completions
    std::uint32_t vocab_size = 0;
    std::uint32_t context_tokens = 0;  ///< longest prompt + output
    std::uint32_t block_tokens = 0;    ///< 0 = no prefix cache
    std::string hash_scheme;           ///< "xxh3-64:1337"; how block hashes are made
    std::string kv_layout;  ///< engine, cell types and layers: what a KV handoff must agree on
    std::uint64_t kv_bytes_per_token = 0;  ///< of a handoff; 0 = not known; not of the identity
    std::uint32_t max_top_logprobs = 0;
    bool structured_output = false;  ///< takes requests with an OutputConstraint
    RecommendedSampling sampling;
    /// How the model writes calls of tools and thinking (text::OutputFormat's names); empty: not
    /// known.
    std::string tool_format;
    std::string reasoning_format;
    // Of a rank that encodes; not part of the identity, since the others of its pool need no such
    // file. Encode ranks of one pool are interchangeable if their media_digest is the same.
    std::vector<std::string> media;  ///< what it encodes: "image", "video"; empty: nothing
    std::string media_digest;        ///< "sha256-sample:<64 hex>" of the file that encodes
    /// What the chat template writes where a media item stands ("<image>"); empty: the template
    /// knows no media.
    std::string media_mark;
    /// LoRA adapters that its engine has loaded, by name; not part of the identity: requests that
    /// name one go to the ranks that have it.
    std::vector<std::string> adapters = {};
    bool operator==(const ModelCard&) const = default;
};
inline constexpr std::size_t kMaxAdapters = 1024;
inline constexpr std::size_t kMaxAdapterBytes = 256;

/// Everything equal but aliases, title, kv_bytes_per_token, adapters and what encode ranks say of
/// media.
[[nodiscard]] bool same_pool(const ModelCard& a, const ModelCard& b);

/// Names the pool in logs, metrics and paths: 16 hex digits, equal for cards that are same_pool().
[[nodiscard]] std::string pool_id(const ModelCard& card);

/// One data-parallel engine core: own cache, own queue.
struct RankInfo {
    std::uint32_t rank = 0;  ///< 0, 1, … without gaps
    std::uint32_t max_running = 0;
    std::uint32_t max_waiting = 0;
    std::uint64_t kv_total_tokens = 0;
    bool operator==(const RankInfo&) const = default;
};

/// Where a worker publishes its events.
struct EventEndpoint {
    std::string address;           ///< ZeroMQ's: "tcp://10.0.0.7:5557", "ipc:///run/…"
    std::string curve_public_key;  ///< Z85, 40 characters; empty = not encrypted
    bool operator==(const EventEndpoint&) const = default;
};

/// What a worker says of itself in the handshake and again whenever it changes.
struct WorkerInfo {
    std::string name;  ///< stable over restarts; for placement, logs, metrics
    Incarnation incarnation;
    std::string version;            ///< of the program
    std::string engine;             ///< "llama", "echo", "vllm", …
    std::vector<Role> roles;        ///< at least one
    ModelCard card;                 ///< while loading perhaps no more than the name
    std::vector<RankInfo> ranks;    ///< at least one
    bool decode_only = false;       ///< takes handoffs alone, no whole requests
    bool loading = false;           ///< the model is not ready to serve
    std::uint32_t ready_in_ms = 0;  ///< while loading: estimate, 0 = unknown
    bool draining = false;          ///< takes no new work and will go
    std::optional<EventEndpoint> events;
    std::vector<std::string> transfer_methods;  ///< "shm", "tcp", "nixl"
    std::map<std::string, std::string> labels;  ///< topology: "zone", "rack", "host", …
    bool operator==(const WorkerInfo&) const = default;
};

}  // namespace stator::protocol
