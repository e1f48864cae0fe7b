#include "stator/worker/worker_metrics.h"

#include <string>

namespace stator::worker {
namespace {

constexpr const char* kPublished = "stator_worker_events_published_total";
constexpr const char* kPublishedHelp =
    "Events given to the event plane by topic; of kv, changes of the cache.";

}  // namespace

WorkerMetrics::WorkerMetrics(metrics::Registry& r)
    : registry_(r),
      links_open_(r.gauge("stator_worker_links_open", "Client processes that are linked now.")),
      links_(r.counter("stator_worker_links_total", "Links that passed the handshake.")),
      requests_open_(r.gauge("stator_worker_requests_open", "Requests of links in work now.")),
      accepted_(r.counter("stator_worker_requests_accepted_total",
                          "Requests of links that the engine took.")),
      tokens_(r.counter("stator_worker_tokens_sent_total", "Generated tokens given to links.")),
      writes_(r.counter("stator_worker_writes_total",
                        "send() calls on links while they carried tokens.")),
      looks_(
          r.counter("stator_worker_load_looks_total",
                    "How often the engines' load was read to tell others; stands still at rest.")),
      kv_events_(r.counter(kPublished, kPublishedHelp, {{"topic", "kv"}})),
      events_dropped_(r.counter("stator_worker_events_dropped_total",
                                "Changes of the cache after the event plane was closed.")) {}

void WorkerMetrics::link_opened() {
    links_.add();
    links_open_.add(1);
}

void WorkerMetrics::link_lost(ErrorCode why) {
    links_open_.add(-1);
    registry_
        .counter("stator_worker_links_lost_total", "Links that ended, by reason.",
                 {{"reason", std::string(to_string(why))}})
        .add();
}

void WorkerMetrics::accepted() {
    accepted_.add();
    requests_open_.add(1);
}

void WorkerMetrics::refused(ErrorCode why) {
    registry_
        .counter("stator_worker_requests_refused_total",
                 "Requests refused before any work, by reason.",
                 {{"reason", std::string(to_string(why))}})
        .add();
}

void WorkerMetrics::ended(std::uint64_t requests) {
    requests_open_.add(-static_cast<double>(requests));
}

void WorkerMetrics::handoff(std::string_view kind, std::string_view outcome) {
    registry_
        .counter("stator_worker_handoffs_total",
                 "What became of handoffs that requests of links came with or ended with.",
                 {{"kind", std::string(kind)}, {"outcome", std::string(outcome)}})
        .add();
}

void WorkerMetrics::sent(std::uint64_t tokens, std::uint64_t writes) {
    tokens_.add(tokens);
    writes_.add(writes);
}

void WorkerMetrics::fetched(std::string_view what, bool found, std::uint64_t bytes) {
    const metrics::Labels labels{{"kind", std::string(what)},
                                 {"outcome", found ? "sent" : "refused"}};
    registry_
        .counter("stator_worker_fetches_total", "Answers to what clients fetched over bulk lanes.",
                 labels)
        .add();
    registry_
        .counter("stator_worker_fetched_bytes_total", "Bytes of those answers.",
                 {{"kind", std::string(what)}})
        .add(bytes);
}

void WorkerMetrics::looked() { looks_.add(); }

void WorkerMetrics::published(std::string_view topic, std::uint64_t events) {
    if (topic == "kv") return kv_events_.add(events);
    registry_.counter(kPublished, kPublishedHelp, {{"topic", std::string(topic)}}).add(events);
}

void WorkerMetrics::dropped(std::uint64_t events) { events_dropped_.add(events); }

}  // namespace stator::worker
