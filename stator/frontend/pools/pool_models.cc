#include "stator/frontend/pools/pool_models.h"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "stator/base/log.h"
#include "stator/engine/remote/advised_engine.h"
#include "stator/frontend/pools/answering_pool.h"
#include "stator/frontend/pools/pool_roles.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::frontend {
namespace {

using protocol::Artifact;

/// Bytes of one of a pool's artifacts, on their way here.
struct Part {
    std::optional<std::string> bytes;
    bool asked = false;
};

/// An answer of a worker.
struct Arrived {
    std::string pool;
    bool is_template = false;
    Result<std::string> bytes;
};

/// A pool and how far its text side has come.
struct Pool {
    std::shared_ptr<const protocol::ModelCard> card;
    std::uint64_t opened = 0;
    std::vector<std::shared_ptr<fleet::Worker>> ready;
    std::size_t ready_ranks = 0;     ///< that answer requests
    std::string why_nobody_answers;  ///< empty: somebody does, or nobody is ready at all
    bool in_view = true;
    /// What its encode ranks that are ready read, and how its template marks it.
    std::vector<std::string> media;
    std::string media_mark;
    std::vector<std::string> adapters;  ///< of all its workers, sorted

    Part tokenizer;
    Part chat_template;
    Deadline not_before = Deadline::at({});
    std::size_t attempts = 0;

    PoolText text;
    std::shared_ptr<engine::Engine> engine;     ///< set: the pool is served
    std::shared_ptr<engine::PoolEngine> ranks;  ///< what it puts others before
    std::shared_ptr<AnsweringPool> door;        ///< the same as `engine`
    std::shared_ptr<routing::PoolRouter> router;
    std::int64_t served_since = 0;
    bool has_settings = false;  ///< who changes them finds it
};

/// What the card says of the model's output; a name of a later version is not known here, and what
/// it would read stays content.
text::OutputFormat format_of(const protocol::ModelCard& card) {
    const auto known = [](const std::string& name, const std::vector<std::string_view>& names) {
        return std::ranges::find(names, name) != names.end() ? name : std::string();
    };
    return {known(card.tool_format, text::tool_formats()),
            known(card.reasoning_format, text::reasoning_formats())};
}

/// What the ready encode ranks of a pool read. All of them: during an upgrade of the encoders the
/// pool has two kinds, and which rank gets an item is its engine's business.
void find_adapters(const fleet::PoolView& seen, Pool& pool) {
    pool.adapters.clear();
    for (const auto& worker : seen.ready) {
        const auto info = worker->info();
        pool.adapters.insert(pool.adapters.end(), info->card.adapters.begin(),
                             info->card.adapters.end());
    }
    std::ranges::sort(pool.adapters);
    const auto repeated = std::ranges::unique(pool.adapters);
    pool.adapters.erase(repeated.begin(), repeated.end());
}

void find_media(const fleet::PoolView& seen, Pool& pool) {
    pool.media.clear();
    pool.media_mark = seen.card->media_mark;
    for (const auto& worker : seen.ready) {
        const auto info = worker->info();
        if (std::ranges::find(info->roles, protocol::Role::kEncode) == info->roles.end()) continue;
        for (const std::string& kind : info->card.media) {
            if (std::ranges::find(pool.media, kind) == pool.media.end()) pool.media.push_back(kind);
        }
        if (pool.media_mark.empty()) pool.media_mark = info->card.media_mark;
    }
    std::ranges::sort(pool.media);
}

}  // namespace

/// All state below the inbox belongs to the thread alone.
struct PoolModels::Impl : std::enable_shared_from_this<PoolModels::Impl> {
    Impl(PoolModelsOptions o, fleet::Fleet& f, Frontend& door, runtime::LoopPool& l,
         metrics::Registry& r, const Clock& c)
        : options(std::move(o)),
          fleet(f),
          frontend(door),
          loops(l),
          registry(r),
          clock(c),
          fetched(r.counter("stator_artifacts_fetched_total",
                            "Tokenizers and templates that came from workers.")),
          found(r.counter("stator_artifacts_found_total",
                          "Tokenizers and templates that were still here from earlier.")),
          failed(r.counter("stator_artifacts_failed_total",
                           "Tokenizers and templates that could not be had or read.")) {}

    void run();
    bool wait(std::shared_ptr<const fleet::FleetView>& view, std::deque<Arrived>& news);
    [[nodiscard]] Deadline next_try() const;
    void take_view(const fleet::FleetView& view);
    void take_arrived(Arrived arrived);
    void advance(const std::string& id, Pool& pool);
    bool have_part(const std::string& id, Pool& pool, Part& part, const Artifact& artifact,
                   bool is_template);
    void ask_worker(const std::string& id, const Pool& pool, const Artifact& artifact,
                    bool is_template);
    void serve(const std::string& id, Pool& pool);
    void set_back(const std::string& id, Pool& pool, const Error& why);
    void publish();
    void stop(Deadline deadline);

    PoolModelsOptions options;
    fleet::Fleet& fleet;
    Frontend& frontend;
    runtime::LoopPool& loops;
    metrics::Registry& registry;
    const Clock& clock;
    metrics::Counter& fetched;
    metrics::Counter& found;
    metrics::Counter& failed;

    std::mutex mutex;  ///< of what follows, of options.router.policy and options.queue
    std::condition_variable wake;
    std::shared_ptr<const fleet::FleetView> latest;
    std::deque<Arrived> inbox;
    bool stopping = false;
    std::vector<PoolModels::ServedRouter> routers;
    std::vector<std::weak_ptr<engine::PoolEngine>> queues;
    // Of the thread alone.
    std::map<std::string, Pool> pools;
    std::thread thread;
};

void PoolModels::Impl::run() {
    pthread_setname_np(pthread_self(), "stator-models");
    std::shared_ptr<const fleet::FleetView> view;
    std::deque<Arrived> news;
    while (wait(view, news)) {
        if (view) take_view(*view);
        for (Arrived& a : news) take_arrived(std::move(a));
        news.clear();
        for (auto& [id, pool] : pools) advance(id, pool);
        if (view) publish();
        view.reset();
    }
}

/// Until there is a new view, an answer, or a pool to be tried again. False at the end.
bool PoolModels::Impl::wait(std::shared_ptr<const fleet::FleetView>& view,
                            std::deque<Arrived>& news) {
    const Deadline until = next_try();
    std::unique_lock lock(mutex);
    const auto something = [this] { return stopping || latest || !inbox.empty(); };
    if (until.is_never()) {
        wake.wait(lock, something);
    } else {
        wake.wait_for(lock, until.left(clock.now()), something);
    }
    view = std::exchange(latest, nullptr);
    news.swap(inbox);
    return !stopping;
}

Deadline PoolModels::Impl::next_try() const {
    Deadline first;
    const TimePoint now = clock.now();
    for (const auto& [id, pool] : pools) {
        const bool wants = !pool.engine && !pool.ready.empty() && !pool.not_before.reached(now);
        if (wants) first = std::min(first, pool.not_before);
    }
    return first;
}

void PoolModels::Impl::take_view(const fleet::FleetView& view) {
    for (auto& [id, pool] : pools) pool.in_view = false;
    for (const fleet::PoolView& seen : view.pools) {
        Pool& pool = pools[seen.id];
        pool.in_view = true;
        pool.card = seen.card;
        pool.opened = seen.opened;
        pool.ready = seen.ready;
        pool.ready_ranks = 0;
        for (const auto& worker : seen.ready) {
            const auto info = worker->info();
            if (answers(*info)) pool.ready_ranks += info->ranks.size();
        }
        pool.why_nobody_answers = why_nobody_answers(seen);
        if (pool.door) pool.door->set_lack(pool.why_nobody_answers);
        find_media(seen, pool);
        find_adapters(seen, pool);
    }
    std::erase_if(pools, [this](auto& entry) {
        auto& [id, pool] = entry;
        if (pool.in_view) return false;
        log_info("A pool of workers is forgotten.", {{"pool", id}, {"model", pool.card->name}});
        if (pool.engine) pool.engine->stop(Deadline::at(clock.now()));
        return true;
    });
}

void PoolModels::Impl::take_arrived(Arrived arrived) {
    const auto it = pools.find(arrived.pool);
    if (it == pools.end()) return;
    Pool& pool = it->second;
    Part& part = arrived.is_template ? pool.chat_template : pool.tokenizer;
    part.asked = false;
    if (!arrived.bytes) return set_back(it->first, pool, arrived.bytes.error());
    const Artifact& artifact =
        arrived.is_template ? *pool.card->chat_template : pool.card->tokenizer;
    if (auto ok = options.keep(artifact, *arrived.bytes); !ok) {
        return set_back(it->first, pool, ok.error());
    }
    fetched.add();
    part.bytes = std::move(*arrived.bytes);
}

void PoolModels::Impl::advance(const std::string& id, Pool& pool) {
    if (pool.engine || pool.ready.empty() || !pool.not_before.reached(clock.now())) return;
    const bool has_tokenizer = have_part(id, pool, pool.tokenizer, pool.card->tokenizer, false);
    const bool has_template =
        !pool.card->chat_template ||
        have_part(id, pool, pool.chat_template, *pool.card->chat_template, true);
    if (has_tokenizer && has_template) serve(id, pool);
}

bool PoolModels::Impl::have_part(const std::string& id, Pool& pool, Part& part,
                                 const Artifact& artifact, bool is_template) {
    if (part.bytes) return true;
    if (part.asked) return false;
    part.bytes = options.find(artifact);
    if (part.bytes) {
        found.add();
        return true;
    }
    part.asked = true;
    ask_worker(id, pool, artifact, is_template);
    return false;
}

void PoolModels::Impl::ask_worker(const std::string& id, const Pool& pool, const Artifact& artifact,
                                  bool is_template) {
    const std::shared_ptr<fleet::Worker> worker = pool.ready[pool.attempts % pool.ready.size()];
    requests::Fetch what;
    what.kind = requests::Fetch::Kind::kArtifact;
    what.sha256 = artifact.sha256;
    const auto answer = [weak = weak_from_this(), id, is_template](Result<std::string> bytes) {
        const auto self = weak.lock();
        if (!self) return;
        {
            const std::scoped_lock lock(self->mutex);
            self->inbox.push_back({id, is_template, std::move(bytes)});
        }
        self->wake.notify_one();
    };
    const bool posted = worker->loop().post(
        [worker, what = std::move(what), answer] { worker->fetch(what, answer); });
    if (!posted) answer(error(ErrorCode::kCancelled, "the server is stopping"));
}

void PoolModels::Impl::serve(const std::string& id, Pool& pool) {
    auto loaded = options.load(*pool.card, *pool.tokenizer.bytes,
                               pool.chat_template.bytes.value_or(std::string()));
    pool.tokenizer = {};
    pool.chat_template = {};
    if (!loaded) return set_back(id, pool, loaded.error());
    pool.text = std::move(*loaded);
    engine::PoolEngineOptions engine_options;
    engine_options.pool = id;
    engine_options.card = *pool.card;
    engine_options.max_migrations = options.max_migrations;
    engine_options.wait_for_worker = options.wait_for_worker;
    engine_options.release = options.release;
    routing::PoolRouterOptions routing;
    {
        const std::scoped_lock lock(mutex);
        routing = options.router;
        engine_options.queue = options.queue;
    }
    pool.router = std::make_shared<routing::PoolRouter>(std::move(routing), *pool.card,
                                                        options.feed, registry, clock);
    if (options.replicas) options.replicas->add(id, pool.router);
    engine_options.router = pool.router;
    pool.ranks = engine::make_pool_engine(std::move(engine_options), fleet, loops, registry, clock);
    pool.engine = pool.ranks;
    if (options.shared_router) {
        pool.engine = engine::make_advised_engine(id, std::move(pool.engine), options.shared_router,
                                                  loops, clock);
    }
    pool.door = std::make_shared<AnsweringPool>(std::move(pool.engine), options.wait_for_worker,
                                                options.release, clock);
    pool.door->set_lack(pool.why_nobody_answers);
    pool.engine = pool.door;
    pool.served_since = clock.unix_seconds();
    log_info("A pool of workers is served.",
             {{"model", pool.card->name}, {"pool", id}, {"ready_ranks", pool.ready_ranks}});
    publish();
    if (options.served) options.served(*pool.card);
}

void PoolModels::Impl::set_back(const std::string& id, Pool& pool, const Error& why) {
    ++pool.attempts;
    pool.not_before = Deadline::after(clock.now(), options.try_again);
    failed.add();
    log_warn("A pool's tokenizer or template can't be had; its model is not served yet.",
             {{"model", pool.card->name},
              {"pool", id},
              {"attempts", pool.attempts},
              {"reason", why.message}});
}

void PoolModels::Impl::publish() {
    std::map<std::string, std::vector<std::pair<const std::string*, Pool*>>> by_name;
    for (auto& [id, pool] : pools) {
        if (pool.engine) by_name[pool.card->name].emplace_back(&id, &pool);
    }
    std::vector<ServedModel> models;
    for (auto& [name, sharing] : by_name) {
        std::vector<SharingPool> parts;
        for (const auto& [id, pool] : sharing) {
            parts.push_back({*id, pool->opened, pool->ready_ranks});
        }
        const std::vector<double> shares = traffic_shares(parts, options.shares);
        for (std::size_t i = 0; i < sharing.size(); ++i) {
            const auto& [id, pool] = sharing[i];
            ServedModel& model = models.emplace_back();
            model.id = name;
            model.aliases = pool->card->aliases;
            for (const auto& [alias, of] : options.aliases) {
                if (of == name) model.aliases.push_back(alias);
            }
            model.created = pool->served_since;
            model.tokenizer = pool->text.tokenizer;
            model.chat_template = pool->text.chat_template;
            model.format = format_of(*pool->card);
            model.engine = pool->engine;
            model.adapters = pool->adapters;
            model.media = pool->media;
            model.media_mark = pool->media_mark;
            model.defaults = options.defaults(pool->card->sampling);
            model.pool = *id;
            model.share = shares[i];
        }
    }
    frontend.set_models(std::move(models));
    const std::scoped_lock lock(mutex);
    routers.clear();
    queues.clear();
    for (auto& [id, pool] : pools) {
        if (!pool.router) continue;
        routers.push_back({id, pool.card->name, pool.router});
        queues.emplace_back(pool.ranks);
        if (std::exchange(pool.has_settings, true)) continue;
        // They may have changed since it was made.
        (void)pool.router->set_policy(options.router.policy);
        pool.ranks->set_queue(options.queue);
    }
}

void PoolModels::Impl::stop(Deadline deadline) {
    {
        const std::scoped_lock lock(mutex);
        stopping = true;
    }
    wake.notify_one();
    if (thread.joinable()) thread.join();
    for (auto& [id, pool] : pools) {
        if (pool.engine) pool.engine->stop(deadline);
    }
}

PoolModels::PoolModels(PoolModelsOptions options, fleet::Fleet& fleet, Frontend& frontend,
                       runtime::LoopPool& loops, metrics::Registry& registry, const Clock& clock)
    : impl_(std::make_shared<Impl>(std::move(options), fleet, frontend, loops, registry, clock)) {
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
    fleet.watch([weak = std::weak_ptr(impl_)](std::shared_ptr<const fleet::FleetView> view) {
        const auto impl = weak.lock();
        if (!impl) return;
        {
            const std::scoped_lock lock(impl->mutex);
            impl->latest = std::move(view);
        }
        impl->wake.notify_one();
    });
}

PoolModels::~PoolModels() { stop(Deadline::at({})); }

std::vector<PoolModels::ServedRouter> PoolModels::routers() const {
    const std::scoped_lock lock(impl_->mutex);
    return impl_->routers;
}

Result<void> PoolModels::set_policy(const router::PolicyOptions& policy) {
    if (auto valid = router::validate(policy); !valid) return valid;
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->options.router.policy = policy;
    }
    for (const ServedRouter& served : routers()) {
        if (auto set = served.router->set_policy(policy); !set) return set;
    }
    return {};
}

void PoolModels::set_queue(const engine::PoolQueueOptions& queue) {
    std::vector<std::weak_ptr<engine::PoolEngine>> queues;
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->options.queue = queue;
        queues = impl_->queues;
    }
    for (const auto& weak : queues) {
        if (const auto ranks = weak.lock()) ranks->set_queue(queue);
    }
}

void PoolModels::stop(Deadline deadline) { impl_->stop(deadline); }

}  // namespace stator::frontend
