#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "stator/engine/kv_source/engine_kv_source.h"

namespace stator::engine {

/// Of an engine that gives its events away for the asking, each once (TensorRT-LLM over HTTP).
struct DrainedKvOptions {
    std::uint32_t ranks = 1;
    KvFeedOptions feed;
    /// What has come since the last call: TrtllmEventReader reads it. On the source's thread, which
    /// it may hold up for some seconds.
    std::function<Result<std::string>()> drain;
    /// Between two calls: after one that brought something; after one that brought nothing twice
    /// as long as before, up to `seldom`.
    std::chrono::milliseconds often{50};
    std::chrono::milliseconds seldom{1'000};
};

/// Asks until it is destroyed, which waits for the call under way; nothing comes after. An engine
/// that fails to answer counts as gone: when it answers again its history begins anew.
[[nodiscard]] std::unique_ptr<EngineKvSource> start_drained_kv_source(DrainedKvOptions options,
                                                                      RankKvSink sink);

}  // namespace stator::engine
