#pragma once

#include <cstdint>
#include <string_view>

#include "stator/base/error.h"
#include "stator/metrics/registry.h"

namespace stator::worker {

/// All metrics of this room. Thread-safe.
class WorkerMetrics {
  public:
    explicit WorkerMetrics(metrics::Registry& registry);

    void link_opened();
    void link_lost(ErrorCode why);
    void accepted();
    void refused(ErrorCode why);
    void ended(std::uint64_t requests);
    /// `kind`: "kv", "embeddings"; `outcome`: "claimed", "cached", "mismatch", "no_transfer",
    /// "released", or why a claim failed.
    void handoff(std::string_view kind, std::string_view outcome);
    /// What left for one link in one turn.
    void sent(std::uint64_t tokens, std::uint64_t writes);
    /// `what`: "artifact", "snapshot", "range".
    void fetched(std::string_view what, bool found, std::uint64_t bytes);
    void looked();
    void published(std::string_view topic, std::uint64_t events);
    /// Events that came when there was nobody to publish them any more.
    void dropped(std::uint64_t events);

  private:
    metrics::Registry& registry_;
    metrics::Gauge& links_open_;
    metrics::Counter& links_;
    metrics::Gauge& requests_open_;
    metrics::Counter& accepted_;
    metrics::Counter& tokens_;
    metrics::Counter& writes_;
    metrics::Counter& looks_;
    metrics::Counter& kv_events_;
    metrics::Counter& events_dropped_;
};

}  // namespace stator::worker
