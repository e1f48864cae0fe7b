#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/dialects/kv_connector.h"
#include "stator/engine/engine.h"
#include "stator/engine/http/media_desk.h"
#include "stator/engine/kv_source/engine_kv_source.h"
#include "stator/engine/probe/probe.h"
#include "stator/net/http_url.h"

namespace stator::engine {

struct AttachOptions {
    net::HttpUrl url;
    ProbeOptions probe;  ///< as it was found with, to find it again
    std::string key;
    std::uint32_t block_tokens = kLeastBlock;  ///< of the pool
    std::uint32_t context_tokens = 0;          ///< of a request; 0: not limited here
    std::uint32_t max_running = 256;           ///< by each rank
    std::uint32_t max_waiting = 1024;
    KvConnector connector = KvConnector::kNone;  ///< DialectOptions::connector
    std::string kv_layout;                       ///< EngineInfo::kv_layout
    MeetingPlace meeting;                        ///< HttpEngineOptions::meeting, decodes_only
    bool decodes_only = false;
    EngineMedia media;        ///< HttpEngineOptions::media
    bool priorities = false;  ///< DialectOptions::priorities, where the engine does not tell
    std::vector<std::string> meeting_ids = {};  ///< MeetingPlace::engine_id by rank
    std::chrono::milliseconds canary_every{0};  ///< HttpEngineOptions::canary_every
    std::chrono::milliseconds canary_within{30'000};
    /// HttpEngineOptions::look_every, look_idle_every.
    std::chrono::milliseconds look_every{1'000};
    std::chrono::milliseconds look_idle_every{5'000};
    /// Between two tries to find an engine again.
    std::chrono::milliseconds probe_every{1'000};
    /// Whether requests should be sent here. At first they should.
    std::function<void(bool usable)> on_usable;
    /// It is back as another engine than it was; at most once.
    std::function<void(const std::string& why)> on_changed;
};

/// Receives the changes of one rank's prefix cache.
using KvSinkOfRank = std::function<KvEventSink(std::uint32_t rank)>;

class AttachedEngine {
  public:
    /// `found` is what probe_engine() gave. Errors as make_http_engine(), start_engine_kv_source().
    [[nodiscard]] static Result<std::unique_ptr<AttachedEngine>> open(AttachOptions options,
                                                                      FoundEngine found,
                                                                      const KvSinkOfRank& sinks);
    virtual ~AttachedEngine() = default;  ///< stop()

    /// By rank. They may outlive this.
    [[nodiscard]] virtual const std::vector<std::shared_ptr<Engine>>& engines() const = 0;
    /// What is not as it should be, in sentences; empty: all is well. Any thread.
    [[nodiscard]] virtual std::vector<std::string> concerns() const = 0;
    /// Where the events of its cache come from, by rank; empty: they are not followed. Any thread.
    [[nodiscard]] virtual std::vector<EngineKvSource::RankState> kv_sources() const = 0;
    /// No callback and no event comes from here on. The engines go on. Idempotent.
    virtual void stop() = 0;
};

}  // namespace stator::engine
