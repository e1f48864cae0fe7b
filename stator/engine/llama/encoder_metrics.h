#pragma once

#include <cstdint>

#include "stator/base/error.h"
#include "stator/metrics/registry.h"

namespace stator::engine::llama {

/// stator_encoder_*: what became of encode legs, and how well the cache of embeddings does.
/// Thread-safe. The registry outlives it.
class EncoderMetrics {
  public:
    explicit EncoderMetrics(metrics::Registry& registry);

    /// Each leg that was asked for ends in one of these; kOverloaded: no memory to leave it in.
    void left() { ended("ok"); }
    void failed(ErrorCode why) { ended(to_string(why)); }

    void found() { hits_.add(); }
    void not_found() { misses_.add(); }
    /// Also of an item that could not be encoded.
    void encoded(double seconds, std::uint32_t rows);
    /// The cache after an item came in.
    void cached(std::uint64_t bytes, std::uint64_t evicted);
    void waiting(std::size_t items) { waiting_.set(static_cast<double>(items)); }

  private:
    void ended(std::string_view outcome);

    metrics::Registry& registry_;
    metrics::Histogram& seconds_;
    metrics::Counter& rows_;
    metrics::Counter& hits_;
    metrics::Counter& misses_;
    metrics::Counter& evictions_;
    metrics::Gauge& cache_bytes_;
    metrics::Gauge& waiting_;
};

}  // namespace stator::engine::llama
