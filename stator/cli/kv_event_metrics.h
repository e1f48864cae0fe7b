#pragma once

#include "stator/engine/engine.h"
#include "stator/metrics/registry.h"

namespace stator::cli {

/// A sink that counts what the prefix cache does: blocks stored and removed, and clears. The
/// registry must outlive the engine that the sink is given to.
[[nodiscard]] engine::KvEventSink count_kv_events(metrics::Registry& registry);

}  // namespace stator::cli
