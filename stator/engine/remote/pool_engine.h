#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/engine/engine.h"
#include "stator/fleet/fleet.h"
#include "stator/metrics/registry.h"
#include "stator/routing/pool_router.h"

namespace stator::engine {

/// Requests that wait at the router: not at a rank, where what was decided can't be changed.
struct PoolQueueOptions {
    std::size_t most_requests = 2048;    ///< 0: none waits, it goes to a rank or is refused
    std::size_t most_per_tenant = 1024;  ///< those without a tenant are one
    /// What a rank may have before a request that goes there.
    routing::Hold hold{};
    double promote_after_s = 30;  ///< who has waited so long counts as more urgent; 0 = never
    std::vector<std::pair<std::string, double>> weights{};  ///< of tenants; others have 1
};

struct PoolEngineOptions {
    std::string pool;          ///< fleet::PoolView::id
    protocol::ModelCard card;  ///< what info() says
    std::uint32_t max_migrations = 3;
    /// How long a request may wait for a worker where none is ready (a restart) before it ends with
    /// kUnavailable and Retry-After; counts once per request, and not beyond its deadline.
    std::chrono::milliseconds wait_for_worker{2'000};
    std::size_t max_waiting = 4096;  ///< requests that wait so; the next is refused
    PoolQueueOptions queue{};
    /// Chooses among the ranks; null: one with default options that follows no events.
    std::shared_ptr<routing::PoolRouter> router = nullptr;
    /// Told of handoffs that nobody will claim, from any thread; must not block. Null: they expire.
    std::function<void(std::shared_ptr<const protocol::Handoff>)> release = nullptr;
};

/// The ranks of one pool as one engine. submit() lets the router choose a ready rank; where the
/// best one has much before it, the request waits here, and is chosen for anew when its turn comes:
/// by class (priority above 0, 0, below), tenants in fair shares, arrival. A worker that
/// refuses for want of room is not asked again for that request as long as another one has room; a
/// worker that is lost hands its requests to others, which go on with the prompt and the tokens so
/// far (legs/request_life.h): every token is delivered once. Refusals and ends reach the sink as
/// events; submit() itself fails only for what can be seen at once (does not fit the context, no
/// worker is known, the queue is full).
///
/// Legs. A whole request may become a prefill leg on one rank and a decode leg on another, booked
/// together, where the router finds that better; what goes wrong with that is computed again, and
/// its client sees nothing of it. A request's media have embeddings, or content, or both: items
/// whose embeddings are missing or were lost are encoded first. Its handoffs are this engine's from
/// submit() on, also where that fails: they are used, or passed to PoolEngineOptions::release. A
/// request with leg kEncode and one item with content runs on an encode rank, and ends at the sink
/// with kHandoff and the item's embeddings, which are the submitter's. Other legs can't be asked
/// for.
///
/// Sinks are called on the workers' loops, once per loop turn.
class PoolEngine : public Engine {
  public:
    /// How requests wait, from now on; any thread. Those that wait stay, also where a bound is
    /// smaller now, and are served even where none may wait any more: then those that come pass
    /// them.
    virtual void set_queue(const PoolQueueOptions& options) = 0;
};

[[nodiscard]] std::unique_ptr<PoolEngine> make_pool_engine(PoolEngineOptions options,
                                                           fleet::Fleet& fleet,
                                                           runtime::LoopPool& loops,
                                                           metrics::Registry& registry,
                                                           const Clock& clock = Clock::real());

}  // namespace stator::engine
