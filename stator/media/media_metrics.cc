#include "stator/media/media_metrics.h"

#include <string>

namespace stator::media {
namespace {

constexpr std::string_view kItems = "stator_media_items_total";
constexpr std::string_view kItemsHelp = "Media items by what became of them.";

}  // namespace

MediaMetrics::MediaMetrics(metrics::Registry& registry)
    : registry_(registry),
      fetch_seconds_(registry.histogram("stator_media_fetch_seconds",
                                        "Time to fetch a media item, whatever came of it.",
                                        metrics::exponential_bounds(0.005, 2, 13))),
      decode_seconds_(registry.histogram("stator_media_decode_seconds",
                                         "Time to decode a media item, waiting excluded.",
                                         metrics::exponential_bounds(0.001, 2, 14))),
      hits_(registry.counter("stator_media_cache_hits_total",
                             "Media items that were decoded already.")) {
    registry_.counter(kItems, kItemsHelp, {{"outcome", "ok"}});
}

void MediaMetrics::loaded() { registry_.counter(kItems, kItemsHelp, {{"outcome", "ok"}}).add(); }

void MediaMetrics::failed(ErrorCode why) {
    registry_.counter(kItems, kItemsHelp, {{"outcome", std::string(to_string(why))}}).add();
}

}  // namespace stator::media
