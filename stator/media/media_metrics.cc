#include "stator/media/media_metrics.h"

#include <string>

namespace stator::media {
namespace {

constexpr std::string_view kItems = "stator_media_items_total";
constexpr std::string_view kItemsHelp = "Images and videos of requests, by what became of them.";
constexpr std::string_view kFetches = "stator_media_fetches_total";
constexpr std::string_view kFetchesHelp = "URLs of images and videos, by how fetching them ended.";
constexpr std::string_view kBytes = "stator_media_bytes_total";
constexpr std::string_view kBytesHelp =
    "Bytes of images and videos as they came, compressed, by whence.";
constexpr std::string_view kOk = "ok";

metrics::Labels items_labels(MediaMetrics::Kind kind, std::string_view outcome) {
    const bool video = kind == MediaMetrics::Kind::kVideo;
    return {{"kind", video ? "video" : "image"}, {"outcome", std::string(outcome)}};
}

}  // namespace

MediaMetrics::MediaMetrics(metrics::Registry& registry)
    : registry_(registry),
      fetch_seconds_(registry.histogram("stator_media_fetch_seconds",
                                        "Time to fetch a media item, whatever came of it.",
                                        metrics::exponential_bounds(0.005, 2, 13))),
      decode_seconds_(registry.histogram("stator_media_decode_seconds",
                                         "Time to decode a media item, waiting excluded.",
                                         metrics::exponential_bounds(0.001, 2, 14))),
      url_bytes_(registry.counter(kBytes, kBytesHelp, {{"from", "url"}})),
      request_bytes_(registry.counter(kBytes, kBytesHelp, {{"from", "request"}})),
      hits_(registry.counter("stator_media_cache_hits_total",
                             "Media items that were decoded already.")) {
    registry_.counter(kItems, kItemsHelp, items_labels(Kind::kImage, kOk));
    registry_.counter(kItems, kItemsHelp, items_labels(Kind::kVideo, kOk));
    registry_.counter(kFetches, kFetchesHelp, {{"outcome", std::string(kOk)}});
}

void MediaMetrics::fetched(double seconds, std::uint64_t bytes) {
    fetch_seconds_.observe(seconds);
    url_bytes_.add(bytes);
    count_fetch(kOk);
}

void MediaMetrics::not_fetched(double seconds, ErrorCode why) {
    fetch_seconds_.observe(seconds);
    count_fetch(to_string(why));
}

void MediaMetrics::count_fetch(std::string_view outcome) {
    registry_.counter(kFetches, kFetchesHelp, {{"outcome", std::string(outcome)}}).add();
}

void MediaMetrics::ended(Kind kind, std::string_view outcome) {
    registry_.counter(kItems, kItemsHelp, items_labels(kind, outcome)).add();
}

}  // namespace stator::media
