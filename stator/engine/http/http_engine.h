#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/engine/dialects/engine_metrics.h"
#include "stator/engine/dialects/request_body.h"
#include "stator/engine/engine.h"
#include "stator/engine/http/media_desk.h"
#include "stator/net/http_pool.h"

namespace stator::engine {

struct HttpEngineOptions {
    net::HttpUrl url;
    DialectOptions dialect;
    /// What is known of the engine; max_running and max_waiting bound what is sent to it together.
    /// With a connector (dialect.connector) it takes prefill legs and KV of others' prefill legs:
    /// `kv_method` is filled in, and `kv_layout`, where it is empty. Better it says the version too
    /// (kv_layout_of()): both engines must have the same layout, and so must the ModelCards of
    /// their workers, whose WorkerOptions::kv_method is this one.
    EngineInfo info;
    /// Of an engine that computes prompts, with an early connector (is_early()): where its peers
    /// meet it. SGLang: its host and SglangServerInfo::bootstrap_port. Mooncake: with the engine's
    /// id too. Where it is not set, prefill legs are refused.
    MeetingPlace meeting;
    /// It generates and computes no prompts, as an SGLang with --disaggregation-mode decode: what
    /// comes without another engine's KV is refused (kUnavailable), for ranks that can do it.
    bool decodes_only = false;
    /// What it does with images and videos; EngineInfo::media and media_objects are filled in.
    EngineMedia media;
    /// How long others may come for the KV of a prefill leg: less than the engine keeps it, which
    /// is 30 s with vLLM's NIXL unless it is told otherwise.
    std::chrono::milliseconds handoff_lease{25'000};
    /// How long a decode leg waits for its first token, where the other engine was still computing
    /// the prompt: if that one fails, this is how it shows.
    std::chrono::milliseconds early_wait{60'000};
    std::uint64_t kv_total_tokens = 0;  ///< 0 = not known
    /// Of an engine that spreads requests over several ranks itself: this one
    /// (X-data-parallel-rank).
    std::optional<std::uint32_t> rank;
    std::string key;  ///< sent as a bearer token; empty = none
    std::chrono::milliseconds connect_timeout{2'000};
    std::chrono::milliseconds silence_timeout{300'000};
    /// Between looks at /metrics and /health while requests are on their way, and without any.
    std::chrono::milliseconds look_every{1'000};
    std::chrono::milliseconds look_idle_every{5'000};
    std::size_t max_connections = 4096;
    /// Without a token of the engine for so long it is asked for one, to see whether it is up but
    /// dead. 0: never. An engine that does not give it within canary_within is not healthy until it
    /// gives one again.
    std::chrono::milliseconds canary_every{0};
    std::chrono::milliseconds canary_within{30'000};
    /// Whether blocks that the engine has are not known by its events, and it is to name those of a
    /// passing request again (DialectOptions::report_full). On the thread of submit(); asked at
    /// most every report_every.
    std::function<bool()> lacks_history;
    std::chrono::milliseconds report_every{20};
    // Called on the engine's own thread; must not block.
    /// Its health has changed; `why` where it is not well.
    std::function<void(bool healthy, std::string_view why)> on_health;
    /// It answers after it did not: it may be another process by now.
    std::function<void()> on_back;
    /// On the thread of submit(), before the engine has it.
    std::function<void(const protocol::GenerateRequest&)> on_submit;
};

/// Talks to one engine. kInvalidArgument: the reasons of net::HttpPool::create().
[[nodiscard]] Result<std::unique_ptr<Engine>> make_http_engine(HttpEngineOptions options,
                                                               const Clock& clock = Clock::real());

}  // namespace stator::engine
