#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "stator/engine/dialects/engine_facts.h"
#include "stator/engine/kv_feed/engine_follower.h"

namespace stator::engine {

struct KvSourceOptions {
    std::vector<KvEventSource> ranks;  ///< at least one
    KvFeedOptions feed;
    EngineFollowerOptions follow;  ///< has_replay is set by each rank's source
    int receive_high_water_mark = 100'000;
    std::size_t max_message_bytes = std::size_t{64} << 20U;
};

/// The events of one rank, in order; on the source's thread.
using RankKvSink =
    std::function<void(std::uint32_t rank, const std::vector<protocol::KvEvent>& events)>;

/// Listens until it is destroyed; no call comes after.
class EngineKvSource {
  public:
    struct RankState {
        std::uint32_t rank = 0;
        EngineFollower::State state = EngineFollower::State::kSyncing;
        bool connected = false;
        bool incomplete = false;
        EngineFollower::Stats messages;
        KvFeed::Stats blocks;
    };
    virtual ~EngineKvSource() = default;
    [[nodiscard]] virtual std::vector<RankState> states() const = 0;
    /// Of a request whose salt or adapter this engine's events do not show (KvFeed::hide()).
    virtual void hide(std::vector<tokens::TokenId> prompt) = 0;
    /// The engine's cache was reset from here.
    virtual void was_reset() = 0;
};

/// kInvalidArgument: an address that ZeroMQ does not take; kExhausted: no sockets or descriptors.
[[nodiscard]] Result<std::unique_ptr<EngineKvSource>> start_engine_kv_source(
    KvSourceOptions options, RankKvSink sink);

}  // namespace stator::engine
