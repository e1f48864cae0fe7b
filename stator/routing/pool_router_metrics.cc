#include "stator/routing/pool_router_metrics.h"

#include <utility>

namespace stator::routing {
namespace {

metrics::Labels labels(const protocol::ModelCard& card) { return {{"model", card.name}}; }

metrics::Gauge* trust_gauge(metrics::Registry& registry, const protocol::ModelCard& card,
                            router::Trust trust) {
    metrics::Labels with = labels(card);
    with.emplace_back("trust", router::to_string(trust));
    return &registry.gauge("stator_router_ranks",
                           "Ranks by what is thought of their KV events: trusted, being read again "
                           "from a snapshot, distrusted.",
                           std::move(with));
}

metrics::Histogram& computed_tokens(metrics::Registry& registry, const protocol::ModelCard& card,
                                    std::string_view way) {
    metrics::Labels with = labels(card);
    with.emplace_back("way", way);
    return registry.histogram(
        "stator_router_computed_tokens",
        "Tokens of a prompt that were to be computed, those cached not included, where it could "
        "have a rank of its own: of those that had one (split) and those that did not (whole).",
        {32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384,
         32768, 65536},
        std::move(with));
}

}  // namespace

PoolRouterMetrics::PoolRouterMetrics(metrics::Registry& registry, const protocol::ModelCard& card)
    : decision_seconds(registry.histogram(
          "stator_router_decision_seconds", "From a prompt's tokens to a booked rank.",
          {5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3}, labels(card))),
      ttft_error(registry.histogram("stator_router_ttft_ratio",
                                    "Real over predicted time from the booking to the first token.",
                                    {0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0},
                                    labels(card))),
      predicted_tokens(registry.counter("stator_router_predicted_cached_tokens_total",
                                        "Prompt tokens expected to be cached where they went.",
                                        labels(card))),
      cached_tokens(registry.counter("stator_router_cached_tokens_total",
                                     "Prompt tokens that engines said were cached.", labels(card))),
      prompt_tokens(registry.counter("stator_router_prompt_tokens_total",
                                     "Prompt tokens of requests with a first token.",
                                     labels(card))),
      whole_tokens(computed_tokens(registry, card, "whole")),
      split_tokens(computed_tokens(registry, card, "split")),
      index_blocks(registry.gauge("stator_router_index_blocks",
                                  "Different KV blocks that the index knows.", labels(card))),
      index_bytes(
          registry.gauge("stator_router_index_bytes", "Memory that the index uses.", labels(card))),
      audit_alarms(registry.counter("stator_router_audit_alarms_total",
                                    "Changes of what is thought of a rank's events.",
                                    labels(card))),
      ranks_by_trust{trust_gauge(registry, card, router::Trust::kTrusted),
                     trust_gauge(registry, card, router::Trust::kResync),
                     trust_gauge(registry, card, router::Trust::kDistrusted)},
      peers_shown(registry.gauge("stator_router_peers",
                                 "Other frontends whose bookings are known here.", labels(card))),
      peers_bookings(registry.gauge("stator_router_peer_bookings",
                                    "Bookings of other frontends that count as load here.",
                                    labels(card))),
      deltas_missed(registry.counter("stator_router_peer_deltas_missed_total",
                                     "Messages of other frontends that did not come in turn.",
                                     labels(card))),
      deltas_repaired(registry.counter("stator_router_peer_repairs_total",
                                       "Messages that made good for missed ones.", labels(card))),
      digest_mismatches(registry.counter(
          "stator_router_peer_digest_mismatches_total",
          "Digests of other frontends that said otherwise than what was known here.",
          labels(card))),
      peers_gone(registry.counter("stator_router_peers_gone_total",
                                  "Other frontends that went or fell silent.", labels(card))),
      delta_age(registry.histogram("stator_router_peer_delta_age_seconds",
                                   "How old the news of other frontends is when it is sent.",
                                   {5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0, 5.0},
                                   labels(card))) {}

}  // namespace stator::routing
