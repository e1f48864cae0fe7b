#pragma once

#include <memory>
#include <string>

#include "stator/base/clock.h"
#include "stator/engine/engine.h"
#include "stator/routing/router_client.h"
#include "stator/runtime/loop.h"

namespace stator::engine {

/// A pool engine that asks a shared router where each request should go, before it goes there. No
/// answer in time, or a worker that can't take it: the pool engine chooses by itself. Requests that
/// name their worker, and those that want the choice explained, are not asked for. Cancelled while
/// it is asked for, a request ends at once.
[[nodiscard]] std::unique_ptr<Engine> make_advised_engine(
    std::string pool, std::shared_ptr<Engine> inner, std::shared_ptr<routing::RouterClient> client,
    runtime::LoopPool& loops, const Clock& clock = Clock::real());

}  // namespace stator::engine
