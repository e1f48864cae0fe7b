#include "stator/engine/llama/encoder_metrics.h"

#include <string>

namespace stator::engine::llama {
namespace {

constexpr std::string_view kLegs = "stator_encoder_legs_total";
constexpr std::string_view kLegsHelp = "Encode legs, by what became of them.";

}  // namespace

EncoderMetrics::EncoderMetrics(metrics::Registry& r)
    : registry_(r),
      seconds_(r.histogram("stator_encoder_seconds",
                           "Time to encode an item, waiting excluded; without those that the cache "
                           "of embeddings had.",
                           metrics::exponential_bounds(0.005, 2, 14))),
      rows_(r.counter("stator_encoder_rows_total", "Rows of embeddings that were computed.")),
      hits_(r.counter("stator_encoder_cache_hits_total",
                      "Items that the cache of embeddings had already.")),
      misses_(r.counter("stator_encoder_cache_misses_total",
                        "Items that the cache of embeddings did not have.")),
      evictions_(r.counter("stator_encoder_cache_evictions_total",
                           "Items that left the cache of embeddings for others.")),
      cache_bytes_(r.gauge("stator_encoder_cache_bytes", "Embeddings in the cache.")),
      waiting_(r.gauge("stator_encoder_waiting_items", "Items that wait to be encoded.")) {
    registry_.counter(kLegs, kLegsHelp, {{"outcome", "ok"}});
}

void EncoderMetrics::ended(std::string_view outcome) {
    registry_.counter(kLegs, kLegsHelp, {{"outcome", std::string(outcome)}}).add();
}

void EncoderMetrics::encoded(double seconds, std::uint32_t rows) {
    seconds_.observe(seconds);
    rows_.add(rows);
}

void EncoderMetrics::cached(std::uint64_t bytes, std::uint64_t evicted) {
    cache_bytes_.set(static_cast<double>(bytes));
    evictions_.add(evicted);
}

}  // namespace stator::engine::llama
