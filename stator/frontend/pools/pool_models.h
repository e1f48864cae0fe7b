#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/codec/json_writer.h"
#include "stator/engine/remote/pool_engine.h"
#include "stator/fleet/fleet.h"
#include "stator/frontend/frontend.h"
#include "stator/frontend/pools/traffic_shares.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/worker_info.h"
#include "stator/routing/replica_plane.h"
#include "stator/routing/router_client.h"
#include "stator/runtime/loop.h"

namespace stator::frontend {

/// What a pool's tokenizer and template became on this side.
struct PoolText {
    std::shared_ptr<const text::Tokenizer> tokenizer;
    std::shared_ptr<const text::ChatTemplate> chat_template;  ///< null: none
};

struct PoolModelsOptions {
    std::vector<std::pair<std::string, std::string>> aliases;  ///< further name → model's name
    ShareRules shares;
    std::uint32_t max_migrations = 3;
    std::chrono::milliseconds wait_for_worker{2'000};
    /// Tells who made a handoff that nobody will claim it; empty: its lease tells.
    std::function<void(std::shared_ptr<const protocol::Handoff>)> release;
    routing::PoolRouterOptions router;
    engine::PoolQueueOptions queue;
    std::shared_ptr<routing::KvFeed> feed;            ///< of KV events; null: none are followed
    std::shared_ptr<routing::ReplicaPlane> replicas;  ///< null: bookings are not shared
    /// Asked where requests should go, before the routers here; null: nobody is.
    std::shared_ptr<routing::RouterClient> shared_router;
    /// What requests leave out, where neither card nor options say: see SamplingDefaults.
    std::function<SamplingDefaults(const protocol::RecommendedSampling&)> defaults;
    /// Artifacts kept from earlier (a cache on disk). Run on a thread of their own, may block.
    std::function<std::optional<std::string>(const protocol::Artifact&)> find;
    std::function<Result<void>(const protocol::Artifact&, std::string_view bytes)> keep;
    /// Bytes to tokenizer and template; the same thread.
    std::function<Result<PoolText>(const protocol::ModelCard&, std::string_view tokenizer,
                                   std::string_view chat_template)>
        load;
    /// Told of each pool that begins to be served; the same thread.
    std::function<void(const protocol::ModelCard&)> served;
    std::chrono::milliseconds try_again{1'000};  ///< after an artifact could not be had
};

/// Turns the pools of a fleet into models behind the door: fetches tokenizer and template of a new
/// pool from one of its workers by digest (or finds them kept), makes an engine of the pool's
/// ranks, and tells the frontend, with each pool's share of the traffic. A pool whose artifacts
/// can't be had is logged, tried again, and not served meanwhile. Works on the fleet's loop and one
/// thread; stop() it before fleet and frontend.
class PoolModels {
  public:
    PoolModels(PoolModelsOptions options, fleet::Fleet& fleet, Frontend& frontend,
               runtime::LoopPool& loops, metrics::Registry& registry,
               const Clock& clock = Clock::real());
    ~PoolModels();  ///< stops
    PoolModels(const PoolModels&) = delete;
    PoolModels& operator=(const PoolModels&) = delete;

    struct ServedRouter {
        std::string pool;
        std::string model;
        std::shared_ptr<routing::PoolRouter> router;
    };
    /// Any thread.
    [[nodiscard]] std::vector<ServedRouter> routers() const;
    /// Both for the pools there are and those to come. Any thread.
    [[nodiscard]] Result<void> set_policy(const router::PolicyOptions& policy);
    void set_queue(const engine::PoolQueueOptions& queue);

    /// Ends the pools' engines by the deadline (what is open then is cancelled). Not on a loop.
    void stop(Deadline deadline);

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

/// The routers as /router shows them.
void append_routers_json(codec::JsonWriter& w,
                         const std::vector<PoolModels::ServedRouter>& routers);

/// The ranks of one, an array.
void append_ranks_json(codec::JsonWriter& w, const routing::PoolRouter::State& state);

/// The fleet as /health shows it: workers with state, roles, pool and load; pools with who is ready
/// for which role, and how they split prompts; failing sources.
void append_fleet_json(codec::JsonWriter& w, const fleet::FleetView& view,
                       const std::vector<PoolModels::ServedRouter>& routers);

}  // namespace stator::frontend
