#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/media/content_cache.h"
#include "stator/media/decoder.h"
#include "stator/media/fetcher.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/handoff.h"

namespace stator::media {

/// A media item as the client gave it.
struct MediaSource {
    enum class Form : std::uint8_t {
        kUrl,     ///< data:, https: or http:
        kBase64,  ///< the bytes alone
    };
    protocol::MediaContent::Kind kind = protocol::MediaContent::Kind::kImage;
    Form form = Form::kUrl;
    std::string text;
    std::string path;  ///< of the field in the request, for errors: "messages[0].content[1]…"
};

struct MediaLoaderOptions {
    FetchOptions fetch;
    DecoderOptions decoder;
    std::uint64_t max_bytes = 16ULL * 1024 * 1024;        ///< of one item, compressed
    std::size_t cache_bytes = 128ULL * 1024 * 1024;       ///< of pixels; 0 = no cache
    std::size_t max_held_bytes = 2048ULL * 1024 * 1024;   ///< of pixels in use; then 503
    std::size_t max_source_bytes = 512ULL * 1024 * 1024;  ///< of sources on their way; then 503
    std::size_t fetch_threads = 16;                       ///< each may wait for a slow server
    std::size_t decode_threads = 0;                       ///< 0 = half of the usable cores
    std::size_t max_waiting = 1024;                       ///< items before each stage; then 503
};

/// The items of one request on their way.
class MediaLoad {
  public:
    virtual ~MediaLoad() = default;
    /// Nobody waits any more: what has not begun is dropped, what has ends soon. `done` may still
    /// be called. Any thread.
    virtual void cancel() = 0;
};

/// Sources to decoded content: fetches, decodes in helper processes, names, keeps. Thread-safe. Two
/// bounded pools of threads: one waits for servers, one for helpers.
class MediaLoader {
  public:
    using Done = std::function<void(Result<std::vector<LoadedMedia>>)>;

    /// `resolver` null: the system's. kUnavailable: helpers can't be started (which is tried).
    [[nodiscard]] static Result<std::shared_ptr<MediaLoader>> make(
        MediaLoaderOptions options, metrics::Registry& registry, const Clock& clock = Clock::real(),
        std::shared_ptr<Resolver> resolver = nullptr);
    ~MediaLoader();  ///< stop()
    MediaLoader(const MediaLoader&) = delete;
    MediaLoader& operator=(const MediaLoader&) = delete;

    /// `done` is called once, on a thread of the loader or within this call: with all items, in the
    /// order of their sources, or with the first error, whose `param` is its source's path. Errors
    /// that are not the client's (a bound is reached, a helper can't be started, the request's own
    /// deadline) are `retryable`.
    [[nodiscard]] std::shared_ptr<MediaLoad> load(std::vector<MediaSource> sources,
                                                  Deadline deadline, Done done);
    [[nodiscard]] bool reads_video() const;
    /// Ends both pools; loads that are open then are dropped. Idempotent.
    void stop();

  private:
    struct Impl;
    explicit MediaLoader(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::media
