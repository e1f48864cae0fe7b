#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/dialects/engine_facts.h"
#include "stator/engine/dialects/request_body.h"

namespace stator::engine {

/// An answer of an engine. status 0: none came; then `body` says why.
struct EngineAnswer {
    int status = 0;
    std::string body;
};
/// Asks the engine with GET and waits.
using AskEngine = std::function<EngineAnswer(std::string_view path)>;

struct ProbeOptions {
    EngineKind kind = EngineKind::kVllm;
    std::string url;                     ///< as it was given, for messages
    std::string host;                    ///< of the url: for addresses that name none
    std::string model;                   ///< a name that it serves; empty: its first
    std::optional<std::uint32_t> ranks;  ///< where it does not say how many it has
    /// "tcp://host:port" of its first rank; empty: as the engine says. "off": none. "drain":
    /// fetched (FoundEngine::drained_events), which takes them from whoever else would.
    std::string events;
    std::string replay;
};

/// What was found.
struct FoundEngine {
    EngineKind kind = EngineKind::kVllm;
    std::string version;  ///< empty: it does not say
    ServedModel model;
    Dialect dialect = Dialect::kVllmCompletions;
    bool guided_fields = false;     ///< DialectOptions::guided_fields
    std::uint32_t page_tokens = 0;  ///< of its prefix cache; 0: not known
    std::uint32_t ranks = 1;
    std::uint64_t kv_tokens = 0;         ///< of a rank's KV cache; 0: not known
    std::vector<KvEventSource> sources;  ///< one for each rank, or none
    /// It gives its events away at POST /kv_cache_events (TensorRT-LLM), and `sources` are none.
    bool drained_events = false;
    bool lora_hidden = false;           ///< KvFeedOptions::lora_hidden
    bool counts_copies = false;         ///< KvFeedOptions::counts_copies
    bool salt_hidden = false;           ///< its events do not show the salts of requests
    std::vector<std::string> adapters;  ///< LoRA adapters of `model` that it has loaded
    bool reports_full = false;          ///< DialectOptions::report_full
    bool priorities = false;            ///< DialectOptions::priorities, where it tells
    bool low_first = false;
    std::string role;  ///< "prefill", "decode"; empty: neither, or not known
    std::optional<std::uint32_t> bootstrap_port;
    /// What would be better with another flag; whole sentences. Not part of what it is.
    std::vector<std::string> advice;
};

/// Asks an engine all of it. kUnavailable: it does not answer, or not yet. kInvalidArgument:
/// another kind of server, a model that it does not serve, a key that it wants. Both are sentences
/// for people.
[[nodiscard]] Result<FoundEngine> probe_engine(const ProbeOptions& options, const AskEngine& ask);

/// The tokens in a block of the pool: the engine's own page where that is at least kLeastBlock,
/// else as many whole pages as that takes; kLeastBlock where its size is not known.
inline constexpr std::uint32_t kLeastBlock = 16;
[[nodiscard]] std::uint32_t pool_block(std::uint32_t page_tokens);

/// What is no longer the same in a way that whoever uses the engine must begin anew; empty where
/// nothing is.
[[nodiscard]] std::string changed(const FoundEngine& before, const FoundEngine& now);

}  // namespace stator::engine
