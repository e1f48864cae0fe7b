#include "stator/cli/media_setup.h"

#include <utility>

#include "stator/net/tls.h"

namespace stator::cli {

Result<std::shared_ptr<media::MediaLoader>> make_media_loader(const config::MediaSettings& settings,
                                                              metrics::Registry& registry) {
    media::MediaLoaderOptions o;
    o.fetch.allow_http = settings.allow_http;
    o.fetch.allow_private = settings.allow_private;
    o.fetch.hosts = settings.hosts;
    o.fetch.max_redirects = settings.redirects;
    o.fetch.max_bytes = settings.max_size.bytes;
    o.fetch.total_timeout = settings.fetch_timeout;
    auto tls = net::TlsContext::client({});
    if (!tls) return tl::unexpected(tls.error());
    o.fetch.tls = std::move(*tls);
    o.decoder.image_helper = settings.helper;
    o.decoder.video_helper = settings.video_helper;
    o.decoder.limits.max_pixels = settings.max_pixels;
    o.decoder.limits.max_frames = settings.video_frames;
    o.decoder.limits.max_duration = settings.video_length;
    o.decoder.limits.time = settings.decode_timeout;
    o.max_bytes = settings.max_size.bytes;
    o.cache_bytes = settings.cache_size.bytes;
    return media::MediaLoader::make(std::move(o), registry);
}

}  // namespace stator::cli
