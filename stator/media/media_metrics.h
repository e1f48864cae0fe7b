#pragma once

#include "stator/base/error.h"
#include "stator/metrics/registry.h"

namespace stator::media {

/// stator_media_*: what became of items and how long it took. Thread-safe.
class MediaMetrics {
  public:
    explicit MediaMetrics(metrics::Registry& registry);

    void fetched(double seconds) { fetch_seconds_.observe(seconds); }
    void decoded(double seconds) { decode_seconds_.observe(seconds); }
    void hit() { hits_.add(); }
    void loaded();
    void failed(ErrorCode why);

  private:
    metrics::Registry& registry_;
    metrics::Histogram& fetch_seconds_;
    metrics::Histogram& decode_seconds_;
    metrics::Counter& hits_;
};

}  // namespace stator::media
