#pragma once

#include <array>

#include "stator/metrics/registry.h"
#include "stator/protocol/worker_info.h"
#include "stator/router/overlap_audit.h"

namespace stator::routing {

/// What a pool's router counts, with the model's name as label. Any thread.
struct PoolRouterMetrics {
    PoolRouterMetrics(metrics::Registry& registry, const protocol::ModelCard& card);

    metrics::Histogram& decision_seconds;
    metrics::Histogram& ttft_error;
    metrics::Counter& predicted_tokens;
    metrics::Counter& cached_tokens;
    metrics::Counter& prompt_tokens;
    /// Of prompts that could be split, by whether they were.
    metrics::Histogram& whole_tokens;
    metrics::Histogram& split_tokens;
    metrics::Gauge& index_blocks;
    metrics::Gauge& index_bytes;
    metrics::Counter& audit_alarms;
    std::array<metrics::Gauge*, 3> ranks_by_trust;  ///< by router::Trust
    // Of other frontends.
    metrics::Gauge& peers_shown;
    metrics::Gauge& peers_bookings;
    metrics::Counter& deltas_missed;
    metrics::Counter& deltas_repaired;
    metrics::Counter& digest_mismatches;
    metrics::Counter& peers_gone;
    metrics::Histogram& delta_age;
};

}  // namespace stator::routing
