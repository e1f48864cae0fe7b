#pragma once

#include <cstdint>
#include <string_view>

#include "stator/base/error.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/handoff.h"

namespace stator::media {

/// stator_media_*: what became of items, how large they were and how long it took. Thread-safe.
class MediaMetrics {
  public:
    using Kind = protocol::MediaContent::Kind;
    explicit MediaMetrics(metrics::Registry& registry);

    /// An answer of a URL's server, or why there is none.
    void fetched(double seconds, std::uint64_t bytes);
    void not_fetched(double seconds, ErrorCode why);
    /// An item that came within its request, out of base64.
    void unpacked(std::uint64_t bytes) { request_bytes_.add(bytes); }
    void decoded(double seconds) { decode_seconds_.observe(seconds); }
    void hit() { hits_.add(); }
    /// Each item ends in one of these; kCancelled: the client left, or another item of its request
    /// failed.
    void loaded(Kind kind) { ended(kind, "ok"); }
    void failed(Kind kind, ErrorCode why) { ended(kind, to_string(why)); }

  private:
    void ended(Kind kind, std::string_view outcome);
    void count_fetch(std::string_view outcome);

    metrics::Registry& registry_;
    metrics::Histogram& fetch_seconds_;
    metrics::Histogram& decode_seconds_;
    metrics::Counter& url_bytes_;
    metrics::Counter& request_bytes_;
    metrics::Counter& hits_;
};

}  // namespace stator::media
