#include "stator/fleet/fleet_metrics.h"

#include <string>

namespace stator::fleet {

FleetMetrics::FleetMetrics(metrics::Registry& registry) {
    for (std::size_t from = 0; from < kStates; ++from) {
        const std::string from_name(to_string(static_cast<MemberState>(from)));
        members_[from] = &registry.gauge("stator_fleet_workers", "Workers known, by state.",
                                         {{"state", from_name}});
        for (std::size_t to = 0; to < kStates; ++to) {
            if (from == to) continue;
            moves_[from][to] =
                &registry.counter("stator_fleet_transitions_total", "Changes of a worker's state.",
                                  {{"from", from_name},
                                   {"to", std::string(to_string(static_cast<MemberState>(to)))}});
        }
    }
    dials_ = &registry.counter("stator_fleet_dials_total", "Links that were tried.");
    refused_ = &registry.counter("stator_fleet_refused_workers_total",
                                 "Workers that were sent away: the same one at another address, "
                                 "or one that contradicts itself.");
    canaries_ = &registry.counter("stator_fleet_canaries_total",
                                  "One-token requests sent to workers that made no step.");
    canaries_lost_ = &registry.counter("stator_fleet_canaries_lost_total",
                                       "Canaries that got no token in time.");
    streams_lost_ = &registry.counter("stator_fleet_streams_lost_total",
                                      "Streams that were open when their worker was lost.");
}

}  // namespace stator::fleet
