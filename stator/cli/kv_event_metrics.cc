#include "stator/cli/kv_event_metrics.h"

#include <variant>

namespace stator::cli {

engine::KvEventSink count_kv_events(metrics::Registry& registry) {
    auto& stored = registry.counter("stator_kv_blocks_stored_total",
                                    "Blocks that became reusable in the prefix cache.");
    auto& removed = registry.counter("stator_kv_blocks_removed_total",
                                     "Blocks that the prefix cache has forgotten.");
    auto& cleared =
        registry.counter("stator_kv_cleared_total", "Times the whole prefix cache was lost.");
    return [&stored, &removed, &cleared](const std::vector<protocol::KvEvent>& events) {
        for (const protocol::KvEvent& event : events) {
            if (const auto* s = std::get_if<protocol::KvStored>(&event.what)) {
                stored.add(s->blocks.size());
            } else if (const auto* r = std::get_if<protocol::KvRemoved>(&event.what)) {
                removed.add(r->sequences.size());
            } else {
                cleared.add();
            }
        }
    };
}

}  // namespace stator::cli
