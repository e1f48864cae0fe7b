#include "stator/media/loader.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <utility>

#include "stator/base/check.h"
#include "stator/media/content.h"
#include "stator/media/data_url.h"
#include "stator/media/media_metrics.h"
#include "stator/runtime/cpu_pool.h"
#include "stator/runtime/loop.h"

namespace stator::media {
namespace {

constexpr std::string_view kTooManyHeld = "too many images are in work at the moment";

tl::unexpected<Error> busy(std::string_view what) {
    auto e = error(ErrorCode::kUnavailable, "{}; try again soon", what);
    e.value().retryable = true;
    e.value().retry_after_ms = 1000;
    return e;
}

/// Counts what it lends out until it is given back.
class Budget {
  public:
    void add(std::size_t bytes) { used_.fetch_add(bytes, std::memory_order_relaxed); }
    void give_back(std::size_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }
    [[nodiscard]] std::size_t used() const { return used_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::size_t> used_{0};
};

/// The open load of one request.
class Load final : public MediaLoad {
  public:
    Load(std::size_t items, Deadline deadline, MediaLoader::Done done)
        : deadline_(deadline), results_(items), open_(items), done_(std::move(done)) {}

    void cancel() override { cancelled_.store(true, std::memory_order_relaxed); }
    [[nodiscard]] const std::atomic<bool>& cancelled() const { return cancelled_; }
    [[nodiscard]] Deadline deadline() const { return deadline_; }

    void finish(std::size_t item, LoadedMedia media) {
        MediaLoader::Done done;
        {
            const std::scoped_lock lock(mutex_);
            results_[item] = std::move(media);
            if (--open_ == 0) done = std::exchange(done_, nullptr);
        }
        if (done) done(std::move(results_));
    }
    void fail(Error why) {
        cancel();
        MediaLoader::Done done;
        {
            const std::scoped_lock lock(mutex_);
            done = std::exchange(done_, nullptr);
        }
        if (done) done(tl::unexpected<Error>(std::move(why)));
    }

  private:
    const Deadline deadline_;
    std::atomic<bool> cancelled_{false};
    std::mutex mutex_;
    std::vector<LoadedMedia> results_;
    std::size_t open_;
    MediaLoader::Done done_;
};

}  // namespace

struct MediaLoader::Impl {
    /// One item, from its source to the end.
    struct Item {
        std::shared_ptr<Load> load;
        std::size_t index = 0;
        MediaSource source;
        std::string bytes;
        std::size_t counted = 0;  ///< of the budget of sources
    };
    using ItemPtr = std::shared_ptr<Item>;

    Impl(MediaLoaderOptions o, metrics::Registry& registry, const Clock& c,
         std::shared_ptr<Resolver> resolver)
        : options(std::move(o)),
          clock(c),
          metrics(registry),
          fetcher(options.fetch, std::move(resolver), c),
          decoder(options.decoder, c),
          cache(options.cache_bytes),
          fetching(std::max<std::size_t>(options.fetch_threads, 1), options.max_waiting,
                   "stator-fetch"),
          decoding(options.decode_threads != 0
                       ? options.decode_threads
                       : std::max<std::size_t>(runtime::usable_cores() / 2, 1),
                   options.max_waiting, "stator-decode") {}

    void begin(const ItemPtr& item);
    void fetch(const ItemPtr& item);
    void decode_later(const ItemPtr& item);
    void decode(const ItemPtr& item);
    Result<LoadedMedia> decoded(Item& item);
    void fail(const ItemPtr& item, Error why);
    /// True: nobody waits for it any more; it has ended.
    bool dropped(Item& item);
    void count(Item& item, std::size_t bytes);
    void remember(const std::shared_ptr<Load>& load);
    void stop();

    const MediaLoaderOptions options;
    const Clock& clock;
    MediaMetrics metrics;
    Fetcher fetcher;
    Decoder decoder;
    ContentCache cache;
    Budget sources;
    std::shared_ptr<Budget> held = std::make_shared<Budget>();
    std::mutex open_mutex;
    std::vector<std::weak_ptr<Load>> open;  ///< some have ended already
    std::size_t open_limit = 64;            ///< then those that have ended are forgotten
    // Last: their threads use what is above.
    runtime::CpuPool fetching;
    runtime::CpuPool decoding;
};

/// How many bytes an item holds while it waits.
void MediaLoader::Impl::count(Item& item, std::size_t bytes) {
    sources.add(bytes);
    sources.give_back(std::exchange(item.counted, bytes));
}

void MediaLoader::Impl::remember(const std::shared_ptr<Load>& load) {
    const std::scoped_lock lock(open_mutex);
    if (open.size() >= open_limit) {
        std::erase_if(open, [](const auto& weak) { return weak.expired(); });
        open_limit = std::max<std::size_t>(2 * open.size(), 64);
    }
    open.push_back(load);
}

void MediaLoader::Impl::stop() {
    {
        const std::scoped_lock lock(open_mutex);
        for (const auto& weak : open) {
            if (const auto load = weak.lock()) load->cancel();
        }
    }
    fetching.stop();
    decoding.stop();
}

void MediaLoader::Impl::fail(const ItemPtr& item, Error why) {
    // Out of the request's own time, whatever the step says of it.
    if (item->load->deadline().reached(clock.now())) {
        why.code = ErrorCode::kDeadlineExceeded;
        why.message = "the request ran out of its time while its media were read";
        why.retryable = true;
    }
    metrics.failed(item->source.kind, why.code);
    why.param = item->source.path;
    count(*item, 0);
    item->load->fail(std::move(why));
}

bool MediaLoader::Impl::dropped(Item& item) {
    if (!item.load->cancelled().load(std::memory_order_relaxed)) return false;
    metrics.failed(item.source.kind, ErrorCode::kCancelled);
    count(item, 0);
    return true;
}

void MediaLoader::Impl::begin(const ItemPtr& item) {
    count(*item, item->source.text.size());
    if (dropped(*item)) return;  // another item of the request has failed already
    if (item->source.kind == protocol::MediaContent::Kind::kVideo && !decoder.reads_video()) {
        return fail(item, decoder.no_video().value());
    }
    if (held->used() >= options.max_held_bytes || sources.used() > options.max_source_bytes) {
        return fail(item, busy(kTooManyHeld).value());
    }
    const bool inside =
        item->source.form == MediaSource::Form::kBase64 || is_data_url(item->source.text);
    if (inside) return decode_later(item);
    const bool taken = fetching.try_submit([self = this, item] { self->fetch(item); });
    if (!taken) fail(item, busy("too many URLs are being fetched").value());
}

void MediaLoader::Impl::fetch(const ItemPtr& item) {
    if (dropped(*item)) return;
    const TimePoint begin = clock.now();
    auto bytes = fetcher.fetch(item->source.text, item->load->deadline(), item->load->cancelled());
    const double seconds = to_seconds(clock.now() - begin);
    if (!bytes) {
        metrics.not_fetched(seconds, bytes.error().code);
        return fail(item, std::move(bytes.error()));
    }
    metrics.fetched(seconds, bytes->size());
    if (bytes->empty()) {
        return fail(item, error(ErrorCode::kDataLoss, "the URL leads to nothing").value());
    }
    item->bytes = std::move(*bytes);
    count(*item, item->bytes.size());
    decode_later(item);
}

void MediaLoader::Impl::decode_later(const ItemPtr& item) {
    const bool taken = decoding.try_submit([self = this, item] { self->decode(item); });
    if (!taken) fail(item, busy("too many images are being decoded").value());
}

Result<LoadedMedia> MediaLoader::Impl::decoded(Item& item) {
    MediaSource& source = item.source;
    if (item.bytes.empty()) {
        auto bytes = source.form == MediaSource::Form::kBase64
                         ? read_base64(source.text, options.max_bytes)
                         : read_data_url(source.text, options.max_bytes);
        if (!bytes) return tl::unexpected<Error>(std::move(bytes.error()));
        source.text = {};
        item.bytes = std::move(*bytes);
        metrics.unpacked(item.bytes.size());
        count(item, item.bytes.size());
    }
    const bool video = source.kind == protocol::MediaContent::Kind::kVideo;
    const protocol::Digest name =
        source_digest(source.kind, video ? decoder.limits().max_frames : 0, item.bytes);
    if (auto known = cache.find(name)) {
        metrics.hit();
        return std::move(*known);
    }
    // Many that came while there was room may have waited together.
    if (held->used() >= options.max_held_bytes) return busy(kTooManyHeld);
    const TimePoint begin = clock.now();
    auto content =
        decoder.decode(source.kind, item.bytes, item.load->deadline(), item.load->cancelled());
    metrics.decoded(to_seconds(clock.now() - begin));
    if (!content) return tl::unexpected<Error>(std::move(content.error()));
    LoadedMedia out;
    out.digest = content_digest(*content);
    const std::size_t bytes = content->pixels.size();
    held->add(bytes);
    out.content = std::shared_ptr<const protocol::MediaContent>(
        new protocol::MediaContent(std::move(*content)),
        [budget = held, bytes](const protocol::MediaContent* c) {
            delete c;
            budget->give_back(bytes);
        });
    cache.keep(name, out);
    return out;
}

void MediaLoader::Impl::decode(const ItemPtr& item) {
    if (dropped(*item)) return;
    auto media = decoded(*item);
    if (!media) return fail(item, std::move(media.error()));
    item->bytes = {};
    count(*item, 0);
    metrics.loaded(item->source.kind);
    item->load->finish(item->index, std::move(*media));
}

Result<std::shared_ptr<MediaLoader>> MediaLoader::make(MediaLoaderOptions options,
                                                       metrics::Registry& registry,
                                                       const Clock& clock,
                                                       std::shared_ptr<Resolver> resolver) {
    options.fetch.max_bytes = options.max_bytes;
    if (!options.fetch.tls) {
        auto tls = net::TlsContext::client({});
        if (!tls) return tl::unexpected<Error>(std::move(tls.error()));
        options.fetch.tls = std::move(*tls);
    }
    if (!resolver) resolver = system_resolver();
    auto impl = std::make_shared<Impl>(std::move(options), registry, clock, std::move(resolver));
    if (auto ok = impl->decoder.check(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    registry.callback("stator_media_helper_crashes_total",
                      "Decoding processes that died of an item or were ended.", true,
                      [weak = std::weak_ptr(impl)] {
                          const auto self = weak.lock();
                          return self ? static_cast<double>(self->decoder.crashes()) : 0.0;
                      });
    registry.callback("stator_media_held_bytes", "Pixels of media items that are in use or cached.",
                      false, [held = impl->held] { return static_cast<double>(held->used()); });
    registry.callback("stator_media_cached_bytes", "Those of them that may be used again.", false,
                      [weak = std::weak_ptr(impl)] {
                          const auto self = weak.lock();
                          return self ? static_cast<double>(self->cache.bytes()) : 0.0;
                      });
    registry.callback("stator_media_source_bytes",
                      "Media items on their way, as they came: they wait, are fetched or decoded.",
                      false, [weak = std::weak_ptr(impl)] {
                          const auto self = weak.lock();
                          return self ? static_cast<double>(self->sources.used()) : 0.0;
                      });
    return std::shared_ptr<MediaLoader>(new MediaLoader(std::move(impl)));
}

MediaLoader::MediaLoader(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

MediaLoader::~MediaLoader() { stop(); }

std::shared_ptr<MediaLoad> MediaLoader::load(std::vector<MediaSource> sources, Deadline deadline,
                                             Done done) {
    STATOR_ASSERT(!sources.empty());
    auto load = std::make_shared<Load>(sources.size(), deadline, std::move(done));
    impl_->remember(load);
    for (std::size_t i = 0; i < sources.size(); ++i) {
        auto item = std::make_shared<Impl::Item>();
        item->load = load;
        item->index = i;
        item->source = std::move(sources[i]);
        impl_->begin(item);
    }
    return load;
}

bool MediaLoader::reads_video() const { return impl_->decoder.reads_video(); }

void MediaLoader::stop() { impl_->stop(); }

}  // namespace stator::media
