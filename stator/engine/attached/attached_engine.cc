#include "stator/engine/attached/attached_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "stator/base/log.h"
#include "stator/engine/http/http_engine.h"
#include "stator/engine/kv_source/drained_kv_source.h"
#include "stator/engine/kv_source/engine_kv_source.h"
#include "stator/engine/probe/engine_client.h"
#include "stator/runtime/cpu_pool.h"

namespace stator::engine {
namespace {

constexpr std::uint32_t kLeastPages = 1U << 16U;
constexpr std::uint32_t kMostPages = 1U << 24U;
/// What vLLM and SGLang allow where nobody says otherwise.
constexpr std::uint32_t kMaxTopLogprobs = 20;

/// One rank's events on their way to the worker: numbered through, whichever source they come from.
class RankEvents {
  public:
    explicit RankEvents(KvEventSink sink) : sink_(std::move(sink)) {}

    void take(const std::vector<protocol::KvEvent>& events) {
        if (base_ != 0) {
            renumbered_ = events;
            for (protocol::KvEvent& e : renumbered_) e.seq.value += base_;
            sink_(renumbered_);
        } else {
            sink_(events);
        }
        if (!events.empty()) last_ = base_ + events.back().seq.value;
    }
    /// The source is gone, and with it what was known.
    void clear() {
        if (last_ == 0) return;
        base_ = ++last_;
        sink_({{.seq = protocol::EventSeq(last_), .what = protocol::KvCleared{}}});
    }

  private:
    KvEventSink sink_;
    std::uint64_t base_ = 0;
    std::uint64_t last_ = 0;
    std::vector<protocol::KvEvent> renumbered_;
};

KvFeedOptions feed_options(const FoundEngine& found, const AttachOptions& options) {
    KvFeedOptions o;
    o.block_tokens = options.block_tokens;
    o.media_placeholders = options.media.placeholders;
    const std::uint64_t pages =
        found.page_tokens == 0 ? 0 : found.kv_tokens / std::uint64_t{found.page_tokens};
    // Twice: for other memories than the device's, and for what it has dropped.
    o.most_pages = pages == 0 ? (1U << 20U)
                              : static_cast<std::uint32_t>(
                                    std::clamp<std::uint64_t>(2 * pages, kLeastPages, kMostPages));
    o.counts_copies = found.counts_copies;
    o.lora_hidden = found.lora_hidden;
    return o;
}

Result<std::string> drained(EngineClient& client) {
    EngineAnswer answer = client.post("/kv_cache_events", "{}");
    constexpr int kOk = 200;
    if (answer.status == kOk) return std::move(answer.body);
    return error(ErrorCode::kUnavailable, "{}",
                 answer.status == 0 ? answer.body : fmt::format("status {}", answer.status));
}

/// What callbacks touch: they may come as long as the engines live.
class Watch : public std::enable_shared_from_this<Watch> {
  public:
    Watch(AttachOptions options, FoundEngine found, const KvSinkOfRank& sinks)
        : options_(std::move(options)), found_(std::move(found)), well_(found_.ranks, true) {
        for (std::uint32_t r = 0; r < found_.ranks; ++r) events_.emplace_back(sinks(r));
    }

    /// Of what was found. Before anything else, or on the pool's thread.
    Result<void> follow() {
        {
            const std::scoped_lock lock(mutex_);
            if (stopped_) return {};
        }
        std::shared_ptr<EngineKvSource> source;
        if (!found_.sources.empty()) {
            KvSourceOptions o;
            o.ranks = found_.sources;
            o.feed = feed_options(found_, options_);
            auto started = start_engine_kv_source(
                std::move(o),
                [keep = shared_from_this()](std::uint32_t rank,
                                            const std::vector<protocol::KvEvent>& events) {
                    keep->events_[rank].take(events);
                });
            if (!started) return tl::unexpected<Error>(std::move(started.error()));
            source = std::move(*started);
        } else if (found_.drained_events) {
            auto client = EngineClient::open(options_.url, options_.key);
            if (!client) return tl::unexpected<Error>(std::move(client.error()));
            DrainedKvOptions o;
            o.ranks = found_.ranks;
            o.feed = feed_options(found_, options_);
            o.drain = [asker = std::shared_ptr<EngineClient>(std::move(*client))] {
                return drained(*asker);
            };
            source = start_drained_kv_source(
                std::move(o),
                [keep = shared_from_this()](std::uint32_t rank,
                                            const std::vector<protocol::KvEvent>& events) {
                    keep->events_[rank].take(events);
                });
        }
        const std::scoped_lock lock(mutex_);
        if (!stopped_) source_ = std::move(source);
        return {};
    }

    void on_submit(const protocol::GenerateRequest& request) {
        if (request.cache_salt == 0 && request.adapter.empty()) return;
        std::shared_ptr<EngineKvSource> source;
        {
            const std::scoped_lock lock(mutex_);
            source = source_;
        }
        if (source) source->hide(request.prompt);
    }
    void on_health(std::uint32_t rank, bool well, std::string_view why) {
        const std::scoped_lock lock(mutex_);
        if (stopped_) return;
        well_[rank] = well;
        if (!well) why_ = why;
        show();
    }
    void on_back() {
        const std::scoped_lock lock(mutex_);
        if (stopped_ || std::exchange(probing_, true)) return;
        show();
        if (!pool_.try_submit([this] { probe_again(); })) probing_ = false;
    }

    [[nodiscard]] std::vector<std::string> concerns() const {
        std::vector<std::string> out;
        std::shared_ptr<EngineKvSource> source;
        {
            const std::scoped_lock lock(mutex_);
            if (!std::ranges::all_of(well_, std::identity{})) {
                out.push_back(
                    fmt::format("the engine at {} is not well: {}", options_.probe.url, why_));
            } else if (probing_ && concerns_.empty()) {
                out.push_back(fmt::format("the engine at {} was gone and is looked at again",
                                          options_.probe.url));
            }
            out.insert(out.end(), concerns_.begin(), concerns_.end());
            source = source_;
        }
        if (!source) return out;
        for (const auto& rank : source->states()) {
            if (!rank.connected) {
                out.push_back(fmt::format("no connection to the KV events of rank {}", rank.rank));
            } else if (rank.incomplete) {
                out.push_back(
                    fmt::format("what rank {} held before is not known in full", rank.rank));
            }
        }
        return out;
    }

    [[nodiscard]] std::vector<EngineKvSource::RankState> kv_sources() const {
        std::shared_ptr<EngineKvSource> source;
        {
            const std::scoped_lock lock(mutex_);
            source = source_;
        }
        return source ? source->states() : std::vector<EngineKvSource::RankState>{};
    }
    /// Something that a rank holds can't be named here.
    [[nodiscard]] bool lacks_history(std::uint32_t rank) const {
        for (const auto& state : kv_sources()) {
            if (state.rank == rank) return state.incomplete || state.blocks.orphans > 0;
        }
        return false;
    }

    void stop() {
        std::shared_ptr<EngineKvSource> source;
        {
            const std::scoped_lock lock(mutex_);
            stopped_ = true;
            source = std::move(source_);
        }
        wake_.notify_all();
        pool_.stop();
        source.reset();
    }

  private:
    /// Under the lock.
    void show() {
        const bool well = std::ranges::all_of(well_, std::identity{});
        // One that was gone is looked at before it gets requests again.
        const bool usable = well && (usable_ || !probing_);
        if (usable == std::exchange(usable_, usable) || !options_.on_usable) return;
        options_.on_usable(usable);
    }

    /// On the pool's thread.
    void probe_again() {
        auto client = EngineClient::open(options_.url, options_.key);
        std::string told;
        while (true) {
            if (!client) return;  // what it is made of was good at first
            const auto found = probe_engine(
                options_.probe, [&](std::string_view path) { return (*client)->ask(path); });
            if (found) return take(*found);
            if (told != found.error().message) {
                told = found.error().message;
                log_warn("The engine that was gone is not back as it was.", {{"reason", told}});
            }
            std::unique_lock lock(mutex_);
            if (wake_.wait_for(lock, options_.probe_every, [this] { return stopped_; })) return;
        }
    }

    void take(const FoundEngine& found) {
        const std::string what = changed(found_, found);
        if (!what.empty()) {
            {
                const std::scoped_lock lock(mutex_);
                concerns_ = {fmt::format("the engine is back, but {}", what)};
                if (stopped_ || std::exchange(told_changed_, true) || !options_.on_changed) return;
            }
            return options_.on_changed(what);
        }
        const bool elsewhere = found.sources != found_.sources;
        if (found.page_tokens != found_.page_tokens) {
            log_warn("The engine is back with other pages than before.",
                     {{"engine", options_.probe.url},
                      {"tokens", found.page_tokens},
                      {"before", found_.page_tokens},
                      {"block", options_.block_tokens}});
        }
        found_ = found;
        if (elsewhere) {
            std::shared_ptr<EngineKvSource> old;
            {
                const std::scoped_lock lock(mutex_);
                old = std::move(source_);
            }
            // A submitter may hold it for a moment: its events must have ended all the same.
            while (old && old.use_count() > 1) std::this_thread::yield();
            old.reset();
            for (RankEvents& rank : events_) rank.clear();
            if (auto ok = follow(); !ok) {
                log_warn("The KV events of the engine can't be followed.",
                         {{"reason", ok.error().message}});
            }
        }
        log_info("The engine is back.",
                 {{"engine", options_.probe.url}, {"version", found.version}});
        const std::scoped_lock lock(mutex_);
        concerns_.clear();
        probing_ = false;
        if (!stopped_) show();
    }

    const AttachOptions options_;
    FoundEngine found_;  ///< before anything runs, then of the pool's thread
    std::vector<RankEvents> events_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::shared_ptr<EngineKvSource> source_;
    std::vector<bool> well_;  ///< by rank
    std::string why_;
    std::vector<std::string> concerns_;
    bool usable_ = true;
    bool probing_ = false;
    bool told_changed_ = false;
    bool stopped_ = false;
    runtime::CpuPool pool_{1, 1, "attached"};
};

class Attached final : public AttachedEngine {
  public:
    explicit Attached(std::shared_ptr<Watch> watch) : watch_(std::move(watch)) {}
    ~Attached() override { stop(); }

    Result<void> start(const AttachOptions& options, const FoundEngine& found) {
        // Before there is an engine that could be found again.
        if (auto ok = watch_->follow(); !ok) return ok;
        for (std::uint32_t rank = 0; rank < found.ranks; ++rank) {
            auto engine = make_http_engine(engine_options(options, found, rank));
            if (!engine) return tl::unexpected<Error>(std::move(engine.error()));
            engines_.push_back(std::move(*engine));
        }
        return {};
    }
    [[nodiscard]] const std::vector<std::shared_ptr<Engine>>& engines() const override {
        return engines_;
    }
    [[nodiscard]] std::vector<std::string> concerns() const override { return watch_->concerns(); }
    [[nodiscard]] std::vector<EngineKvSource::RankState> kv_sources() const override {
        return watch_->kv_sources();
    }
    void stop() override { watch_->stop(); }

  private:
    HttpEngineOptions engine_options(const AttachOptions& options, const FoundEngine& found,
                                     std::uint32_t rank) {
        HttpEngineOptions o;
        o.url = options.url;
        o.dialect.dialect = found.dialect;
        o.dialect.model = found.model.name;
        o.dialect.guided_fields = found.guided_fields;
        o.dialect.priorities = found.priorities || options.priorities;
        o.dialect.low_first = found.low_first;
        o.info.adapters = found.adapters;
        o.info.kind = std::string(to_string(found.kind));
        o.info.device = "remote";
        o.info.context_tokens = options.context_tokens;
        o.info.block_tokens = options.block_tokens;
        o.info.max_running = options.max_running;
        o.info.max_waiting = options.max_waiting;
        o.info.max_top_logprobs = found.dialect == Dialect::kTrtllm ? 0 : kMaxTopLogprobs;
        o.info.structured_output = true;
        o.info.kv_events = !found.sources.empty() || found.drained_events;
        o.kv_total_tokens = found.kv_tokens;
        o.dialect.connector = options.connector;
        o.info.kv_layout = options.kv_layout;
        o.meeting = options.meeting;
        if (rank < options.meeting_ids.size()) o.meeting.engine_id = options.meeting_ids[rank];
        o.decodes_only = options.decodes_only;
        o.media = options.media;
        if (found.ranks > 1) o.rank = o.dialect.rank = rank;
        o.key = options.key;
        o.look_every = options.look_every;
        o.look_idle_every = options.look_idle_every;
        o.canary_every = options.canary_every;
        o.canary_within = options.canary_within;
        const std::weak_ptr<Watch> watch = watch_;
        o.on_health = [watch, rank](bool well, std::string_view why) {
            if (const auto w = watch.lock()) w->on_health(rank, well, why);
        };
        if (found.reports_full) {
            o.lacks_history = [watch, rank] {
                const auto w = watch.lock();
                return w && w->lacks_history(rank);
            };
        }
        if (rank == 0) {
            o.on_back = [watch] {
                if (const auto w = watch.lock()) w->on_back();
            };
        }
        if (found.salt_hidden || found.lora_hidden) {
            o.on_submit = [watch, salts = found.salt_hidden,
                           adapters = found.lora_hidden](const protocol::GenerateRequest& r) {
                if (!(salts && r.cache_salt != 0) && !(adapters && !r.adapter.empty())) return;
                if (const auto w = watch.lock()) w->on_submit(r);
            };
        }
        return o;
    }

    std::shared_ptr<Watch> watch_;
    std::vector<std::shared_ptr<Engine>> engines_;
};

}  // namespace

Result<std::unique_ptr<AttachedEngine>> AttachedEngine::open(AttachOptions options,
                                                             FoundEngine found,
                                                             const KvSinkOfRank& sinks) {
    auto watch = std::make_shared<Watch>(options, found, sinks);
    auto attached = std::make_unique<Attached>(watch);
    if (auto ok = attached->start(options, found); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    return attached;
}

}  // namespace stator::engine
