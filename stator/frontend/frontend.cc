#include "stator/frontend/frontend.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <unordered_map>
#include <utility>

#include "stator/base/check.h"
#include "stator/frontend/auth.h"
#include "stator/frontend/cors.h"
#include "stator/frontend/error_mapping.h"
#include "stator/frontend/error_response.h"
#include "stator/frontend/frontend_metrics.h"
#include "stator/frontend/generation.h"
#include "stator/frontend/health.h"
#include "stator/frontend/media_stage.h"
#include "stator/frontend/model_directory.h"
#include "stator/frontend/prepared_request.h"
#include "stator/frontend/relayed_request.h"
#include "stator/frontend/request_id.h"
#include "stator/frontend/request_record.h"
#include "stator/frontend/route_hints.h"
#include "stator/frontend/router.h"
#include "stator/runtime/cpu_pool.h"

namespace stator::frontend {
namespace {

constexpr std::string_view kJson = "application/json";
/// Bodies above this are read and tokenised on the pool: on a loop they would hold up its other
/// connections. So are all where the tokenizers would keep too much memory on all loops together.
constexpr std::size_t kInlineBodyBytes = 64 * 1024;
constexpr std::size_t kMaxBytesOfThreads = 64 * 1024 * 1024;
/// Bounds of what waits for the pool.
constexpr std::size_t kMaxPreparing = 4096;
constexpr std::size_t kMaxPreparingBytes = 256 * 1024 * 1024;
/// After bodies above this, freed memory is given back to the system.
constexpr std::size_t kTrimBodyBytes = 4 * 1024 * 1024;
constexpr std::size_t kKeptDocumentBytes = 8 * 1024 * 1024;
constexpr std::size_t kLoggedPathBytes = 256;
constexpr std::uint32_t kBusyRetryMs = 1000;

/// A long request on its way through the pool.
struct PrepareJob {
    Api api = Api::kChat;
    std::string body;
    std::size_t body_bytes = 0;
    std::atomic<bool> abandoned{false};
    std::optional<Result<PreparedRequest>> result;
    std::shared_ptr<const ModelEntry> entry;
};

/// What a loop keeps. Only on that loop.
struct LoopState {
    struct Pending {
        std::shared_ptr<net::HttpExchange> exchange;
        std::shared_ptr<RequestRecord> record;
    };
    LoopState(runtime::Loop& l, const Clock& clock, std::atomic<std::uint64_t>& next_id,
              IdSource& ids, std::weak_ptr<void> owner)
        : loop(l), hub(l, clock, next_id, ids, std::move(owner)) {}

    runtime::Loop& loop;
    GenerationHub hub;
    codec::JsonDocument document;
    std::unordered_map<const PrepareJob*, Pending> preparing;
};

bool is_json(std::string_view content_type) {
    content_type = content_type.substr(0, content_type.find(';'));
    while (content_type.ends_with(' ') || content_type.ends_with('\t'))
        content_type.remove_suffix(1);
    return content_type.empty() || std::ranges::equal(content_type, kJson, [](char a, char b) {
               return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
           });
}

Error busy(std::string message) {
    Error e;
    e.code = ErrorCode::kUnavailable;
    e.message = std::move(message);
    e.retryable = true;
    e.retry_after_ms = kBusyRetryMs;
    return e;
}

std::uint64_t random_seed() {
    std::random_device device;
    return (std::uint64_t{device()} << 32U) | device();
}

}  // namespace

struct Frontend::Impl : std::enable_shared_from_this<Frontend::Impl> {
    Impl(FrontendOptions o, runtime::LoopPool& l, metrics::Registry& r, const Clock& c)
        : options(std::move(o)),
          loops(l),
          registry(r),
          clock(c),
          keys(options.api_keys),
          cors(options.cors_origins),
          metrics(r),
          ids(random_seed()),
          started(c.now()) {}

    void open(std::size_t prepare_threads);
    LoopState& state_of(runtime::Loop& loop);
    void handle(std::shared_ptr<net::HttpExchange> exchange);
    void dispatch(const std::shared_ptr<net::HttpExchange>& exchange,
                  const std::shared_ptr<RequestRecord>& record, const RouteMatch& match);
    void answer_plain(net::HttpExchange& exchange, const RouteMatch& match,
                      const RequestRecord& record);
    /// Whether the caller's routing hints count.
    [[nodiscard]] bool trusts(const RequestRecord& record) const;
    void answer_model(net::HttpExchange& exchange, const std::string& name);
    void accept_generation(const std::shared_ptr<net::HttpExchange>& exchange,
                           const std::shared_ptr<RequestRecord>& record, Api api);
    void prepare_on_pool(LoopState& state, Api api, std::string body,
                         const std::shared_ptr<net::HttpExchange>& exchange,
                         const std::shared_ptr<RequestRecord>& record);
    void prepared_on_pool(LoopState& state, const std::shared_ptr<PrepareJob>& job);
    void generate(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
                  const std::shared_ptr<RequestRecord>& record,
                  const std::shared_ptr<const ModelEntry>& entry, Result<PreparedRequest> request);
    /// True: the request is for the relay, which has it now.
    [[nodiscard]] bool pass_on(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
                               const std::shared_ptr<RequestRecord>& record, std::string& body);
    [[nodiscard]] std::shared_ptr<const ModelDirectory> models() {
        const std::scoped_lock lock(models_mutex);
        return models_now;
    }
    /// Reads and encodes the request's media first.
    void load_media(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
                    const std::shared_ptr<RequestRecord>& record, PreparedRequest request,
                    Deadline deadline);
    [[nodiscard]] Result<void> may_load(const PreparedRequest& request) const;
    void begin(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
               const std::shared_ptr<RequestRecord>& record, PreparedRequest request,
               Deadline deadline);
    static void count_demand(const net::HttpExchange& exchange, RequestRecord& record,
                             const PreparedRequest& request);
    void ended(RequestRecord& record, int status, std::uint64_t body_bytes);

    const FrontendOptions options;
    runtime::LoopPool& loops;
    metrics::Registry& registry;
    const Clock& clock;
    std::mutex replacing_mutex;  ///< one set_models() at a time
    std::mutex models_mutex;     ///< the pointer below
    std::shared_ptr<const ModelDirectory> models_now = std::make_shared<ModelDirectory>();
    std::function<void(codec::JsonWriter&)> append_fleet;
    std::function<std::vector<std::string>()> concerns;
    std::function<std::vector<std::string>()> more_concerns;
    std::function<void(codec::JsonWriter&)> append_router;
    std::function<Result<std::string>(std::string_view target)> ask_planner;
    Frontend::RouterAction act_on_router;
    std::shared_ptr<RequestRelay> relay;        ///< null: none
    std::shared_ptr<media::MediaLoader> media;  ///< null: none
    KeyRing keys;
    CorsPolicy cors;
    FrontendMetrics metrics;
    IdSource ids;
    const TimePoint started;
    std::atomic<std::uint64_t> next_id{1};
    std::atomic<std::int64_t> inflight{0};
    std::atomic<std::size_t> preparing_bytes{0};
    std::atomic<Readiness> readiness{Readiness::kStarting};
    std::vector<std::unique_ptr<LoopState>> states;
    std::unique_ptr<runtime::CpuPool> pool;  // last: its threads use what is above
};

void Frontend::Impl::open(std::size_t prepare_threads) {
    for (std::size_t i = 0; i < loops.size(); ++i) {
        states.push_back(
            std::make_unique<LoopState>(loops.at(i), clock, next_id, ids, weak_from_this()));
    }
    if (prepare_threads == 0)
        prepare_threads = std::max<std::size_t>(runtime::usable_cores() / 2, 1);
    pool = std::make_unique<runtime::CpuPool>(prepare_threads, kMaxPreparing, "stator-prepare");
    add_process_metrics(registry);
    registry.callback("stator_prepare_refused_total",
                      "Long prompts refused because too many were being read.", true,
                      [weak = weak_from_this()] {
                          const auto self = weak.lock();
                          return self ? static_cast<double>(self->pool->refused()) : 0.0;
                      });
}

LoopState& Frontend::Impl::state_of(runtime::Loop& loop) {
    for (const auto& state : states) {
        if (&state->loop == &loop) return *state;
    }
    STATOR_CHECK(false, "a request came from a loop that is not of the frontend's pool");
    __builtin_unreachable();
}

void Frontend::Impl::handle(std::shared_ptr<net::HttpExchange> exchange) {
    const net::HttpRequest& request = exchange->request();
    RouteMatch match = match_route(request.path);
    auto record = std::make_shared<RequestRecord>();
    record->method = request.method;
    record->path = request.path.substr(0, kLoggedPathBytes);
    record->peer = request.peer;
    record->route = match.route;
    record->received = request.received;
    const std::string_view given = request.header("x-request-id");
    record->id = valid_request_id(given) ? std::string(given) : ids.next("req-");

    const std::weak_ptr<Impl> weak = weak_from_this();
    exchange->on_complete([weak, record](int status, std::uint64_t bytes) {
        if (const auto self = weak.lock()) self->ended(*record, status, bytes);
    });
    exchange->on_disconnect([weak, record] {
        if (record->abandon) std::exchange(record->abandon, nullptr)();
        constexpr int kClientClosedRequest = 499;
        if (const auto self = weak.lock()) self->ended(*record, kClientClosedRequest, 0);
    });
    exchange->add_header("x-request-id", record->id);
    cors.add_headers(*exchange);
    if (cors.is_preflight(request)) return cors.answer_preflight(*exchange, match.route);
    dispatch(exchange, record, match);
}

void Frontend::Impl::dispatch(const std::shared_ptr<net::HttpExchange>& exchange,
                              const std::shared_ptr<RequestRecord>& record,
                              const RouteMatch& match) {
    const net::HttpRequest& request = exchange->request();
    if (match.needs_key && !keys.open()) {
        const std::string_view key = presented_key(request);
        const auto known = keys.find(key);
        if (!known) {
            return respond_error(
                *exchange,
                error(ErrorCode::kUnauthenticated, "{}",
                      key.empty() ? "no API key was given; send it as \"Authorization: Bearer KEY\""
                                  : "the API key is not valid here")
                    .value());
        }
        if (*known < options.key_tenants.size()) record->tenant = options.key_tenants[*known];
        record->trusted_key = *known < options.key_trusted.size() && options.key_trusted[*known];
    }
    const std::string path = request.path.substr(0, kLoggedPathBytes);
    const bool of_router = match.route == Route::kRouter || match.route == Route::kRouterAction;
    if (match.route == Route::kUnknown || (of_router && !append_router) ||
        (match.route == Route::kPlanner && !ask_planner)) {
        return respond_error(*exchange, error(ErrorCode::kNotFound, "unknown request URL: {} {}",
                                              request.method, path)
                                            .value());
    }
    if (match.route == Route::kNotServed) {
        return respond_error(
            *exchange,
            error(ErrorCode::kUnsupported, "{} is part of OpenAI's API but not served here", path)
                .value());
    }
    if (!method_allowed(match.route, request.method)) {
        const std::string_view allowed = allowed_methods(match.route);
        exchange->add_header("Allow", allowed);
        return respond_error(
            *exchange, error(ErrorCode::kMethodNotAllowed, "{} does not take {}; it takes {}", path,
                             request.method, allowed)
                           .value());
    }
    if (match.route == Route::kChatCompletions) {
        return accept_generation(exchange, record, Api::kChat);
    }
    if (match.route == Route::kCompletions) {
        return accept_generation(exchange, record, Api::kCompletion);
    }
    answer_plain(*exchange, match, *record);
}

bool Frontend::Impl::trusts(const RequestRecord& record) const {
    return record.trusted_key || options.trust_hints == TrustHints::kEverybody ||
           (options.trust_hints == TrustHints::kLocal && is_local_peer(record.peer));
}

void Frontend::Impl::answer_plain(net::HttpExchange& exchange, const RouteMatch& match,
                                  const RequestRecord& record) {
    switch (match.route) {
        case Route::kModels: {
            std::string body;
            models()->append_list_json(body, relay ? relay->models() : std::vector<std::string>());
            return exchange.respond(200, kJson, body);
        }
        case Route::kModel:
            return answer_model(exchange, match.model);
        case Route::kHealth: {
            auto worries = concerns ? concerns() : std::vector<std::string>();
            if (more_concerns) {
                for (std::string& more : more_concerns()) worries.push_back(std::move(more));
            }
            const HealthReport report =
                health_report(readiness.load(), *models(), to_seconds(clock.now() - started),
                              inflight.load(std::memory_order_relaxed), append_fleet, worries,
                              relay && relay->healthy());
            return exchange.respond(report.status, kJson, report.body);
        }
        case Route::kLive:
            return exchange.respond(200, kJson, R"({"status":"live"})");
        case Route::kMetrics:
            return exchange.respond(200, "text/plain; version=0.0.4; charset=utf-8",
                                    registry.render());
        case Route::kRouter: {
            std::string body;
            codec::JsonWriter w(body);
            append_router(w);
            return exchange.respond(200, kJson, body);
        }
        case Route::kPlanner: {
            const auto answer = ask_planner(exchange.request().target);
            if (!answer) return respond_error(exchange, answer.error());
            const bool text = exchange.request().target.find("format=text") != std::string::npos;
            return exchange.respond(200, text ? "text/plain; charset=utf-8" : kJson, *answer);
        }
        case Route::kRouterAction: {
            const auto answer = act_on_router(match.model, exchange.take_body(), trusts(record));
            if (!answer) return respond_error(exchange, answer.error());
            return exchange.respond(200, kJson, *answer);
        }
        case Route::kChatCompletions:
        case Route::kCompletions:
        case Route::kNotServed:
        case Route::kUnknown:
            break;
    }
    STATOR_BUG("a route without an answer");
    respond_status_error(exchange, 500, "this route has no answer");
}

void Frontend::Impl::answer_model(net::HttpExchange& exchange, const std::string& name) {
    if (relay && models()->find(name) == nullptr && relay->serves(name)) {
        std::string body;
        ModelDirectory::append_relayed_json(body, name);
        return exchange.respond(200, kJson, body);
    }
    const auto entry = models()->require(name);
    if (!entry) return respond_error(exchange, entry.error());
    std::string body;
    ModelDirectory::append_model_json(body, **entry, name);
    exchange.respond(200, kJson, body);
}

void Frontend::Impl::accept_generation(const std::shared_ptr<net::HttpExchange>& exchange,
                                       const std::shared_ptr<RequestRecord>& record, Api api) {
    if (!is_json(exchange->request().header("content-type"))) {
        return respond_status_error(*exchange, 415, "the content type must be application/json");
    }
    const std::int64_t now_inflight = inflight.fetch_add(1, std::memory_order_relaxed) + 1;
    record->inflight = true;
    metrics.inflight().set(static_cast<double>(now_inflight));
    if (now_inflight > static_cast<std::int64_t>(options.max_inflight)) {
        metrics.refused_busy().add();
        return respond_error(*exchange, busy(fmt::format("{} requests are in work, as many as this "
                                                         "server takes; try again soon",
                                                         options.max_inflight)));
    }
    LoopState& state = state_of(exchange->loop());
    std::string body = exchange->take_body();
    if (relay && pass_on(state, exchange, record, body)) return;
    const bool few_encode = models()->bytes_per_thread() * loops.size() > kMaxBytesOfThreads;
    if (body.size() > kInlineBodyBytes || few_encode) {
        return prepare_on_pool(state, api, std::move(body), exchange, record);
    }
    std::shared_ptr<const ModelEntry> entry;
    auto request = prepare_request(api, body, state.document, *models(), options.max_choices,
                                   clock.unix_seconds(), &entry);
    generate(state, exchange, record, entry, std::move(request));
}

bool Frontend::Impl::pass_on(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
                             const std::shared_ptr<RequestRecord>& record, std::string& body) {
    auto name = read_relayed(body, state.document);
    if (body.size() > kInlineBodyBytes) state.document.shrink();
    if (!name) {
        record->finish = to_string(name.error().code);
        respond_error(*exchange, name.error());
        return true;
    }
    if (models()->find(*name) != nullptr || !relay->serves(*name)) return false;
    record->model = *name;
    RequestRelay::Request request;
    request.exchange = exchange;
    request.path = exchange->request().path;
    request.body = std::move(body);
    request.model = *std::move(name);
    request.id = record->id;
    request.on_first_byte = [record](TimePoint at) { record->first_token = at; };
    record->abandon = relay->pass_on(std::move(request));
    return true;
}

void Frontend::Impl::prepare_on_pool(LoopState& state, Api api, std::string body,
                                     const std::shared_ptr<net::HttpExchange>& exchange,
                                     const std::shared_ptr<RequestRecord>& record) {
    auto job = std::make_shared<PrepareJob>();
    job->api = api;
    job->body_bytes = body.size();
    job->body = std::move(body);
    const std::size_t bytes = preparing_bytes.fetch_add(job->body_bytes) + job->body_bytes;
    const auto work = [this, job, &state, weak = weak_from_this()] {
        if (!job->abandoned.load(std::memory_order_relaxed)) {
            // Kept, as fresh memory costs more than reading: but for that of the longest bodies.
            static thread_local codec::JsonDocument document;
            job->result =
                prepare_request(job->api, job->body, document, *models(), options.max_choices,
                                clock.unix_seconds(), &job->entry, &job->abandoned);
            if (document.capacity_bytes() > kKeptDocumentBytes) document.shrink();
        }
        job->body.clear();
        job->body.shrink_to_fit();
        if (job->body_bytes > kTrimBodyBytes) malloc_trim(0);
        preparing_bytes.fetch_sub(job->body_bytes);
        state.loop.post([weak, job, &state] {
            if (const auto self = weak.lock()) self->prepared_on_pool(state, job);
        });
    };
    if (bytes > kMaxPreparingBytes || !pool->try_submit(work)) {
        preparing_bytes.fetch_sub(job->body_bytes);
        metrics.refused_busy().add();
        return respond_error(
            *exchange, busy("too many long prompts are being read at the moment; try again soon"));
    }
    state.preparing.emplace(job.get(), LoopState::Pending{exchange, record});
    record->abandon = [job] { job->abandoned.store(true, std::memory_order_relaxed); };
}

void Frontend::Impl::prepared_on_pool(LoopState& state, const std::shared_ptr<PrepareJob>& job) {
    const auto found = state.preparing.find(job.get());
    if (found == state.preparing.end()) return;
    const LoopState::Pending pending = std::move(found->second);
    state.preparing.erase(found);
    pending.record->abandon = nullptr;
    if (pending.exchange->disconnected() || !job->result) return;
    generate(state, pending.exchange, pending.record, job->entry, std::move(*job->result));
}

void Frontend::Impl::generate(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
                              const std::shared_ptr<RequestRecord>& record,
                              const std::shared_ptr<const ModelEntry>& entry,
                              Result<PreparedRequest> request) {
    if (entry != nullptr) {
        record->model = entry->model.id;
        record->metrics = entry->metrics;
    }
    if (!request) {
        record->finish = to_string(request.error().code);
        return respond_error(*exchange, request.error());
    }
    auto hints = read_route_hints(exchange->request(), request->fields.hints, trusts(*record));
    if (!hints) {
        record->finish = to_string(hints.error().code);
        return respond_error(*exchange, hints.error());
    }
    request->hints = std::move(hints->hints);
    request->priority = hints->priority;
    request->tenant = hints->tenant.empty() ? record->tenant : std::move(hints->tenant);
    request->cache_salt = hints->cache_salt;
    count_demand(*exchange, *record, *request);
    const Deadline deadline = options.request_timeout.count() > 0
                                  ? Deadline::after(record->received, options.request_timeout)
                                  : Deadline::never();
    if (request->media.empty())
        return begin(state, exchange, record, std::move(*request), deadline);
    load_media(state, exchange, record, std::move(*request), deadline);
}

void Frontend::Impl::count_demand(const net::HttpExchange& exchange, RequestRecord& record,
                                  const PreparedRequest& request) {
    // OpenAI's libraries count what they send again.
    const std::string_view again = exchange.request().header("x-stainless-retry-count");
    if (!again.empty() && again != "0") return;
    record.offered = request.prompts.size() * request.fields.n;
    std::uint64_t tokens = 0;
    for (const PreparedPrompt& prompt : request.prompts) tokens += prompt.tokens.size();
    record.metrics->offer(record.offered, tokens, request.media.size());
}

void Frontend::Impl::load_media(LoopState& state,
                                const std::shared_ptr<net::HttpExchange>& exchange,
                                const std::shared_ptr<RequestRecord>& record,
                                PreparedRequest request, Deadline deadline) {
    if (auto ok = may_load(request); !ok) {
        record->finish = to_string(ok.error().code);
        return respond_error(*exchange, ok.error());
    }
    const auto done = [weak = weak_from_this(), &state, exchange, record,
                       deadline](Result<PreparedRequest> whole) {
        const auto self = weak.lock();
        if (!self) return;
        record->abandon = nullptr;
        if (exchange->disconnected()) {
            if (whole) release_media(*whole);
            return;
        }
        if (!whole) {
            record->finish = to_string(whole.error().code);
            return respond_error(*exchange, whole.error());
        }
        self->begin(state, exchange, record, std::move(*whole), deadline);
    };
    const auto stage =
        std::make_shared<MediaStage>(state.hub, state.loop, std::move(request), deadline, done);
    record->abandon = [weak = std::weak_ptr<MediaStage>(stage)] {
        if (const auto s = weak.lock()) s->abandon();
    };
    stage->start(*media);
}

Result<void> Frontend::Impl::may_load(const PreparedRequest& request) const {
    if (media == nullptr) {
        auto e = error(ErrorCode::kUnsupported, "this server reads no images or videos");
        e.value().param = request.media.front().path;
        return e;
    }
    if (request.media.size() > options.max_media_items) {
        return param_error(request.media[options.max_media_items].path,
                           "the request has {} images and videos; at most {} are allowed",
                           request.media.size(), options.max_media_items);
    }
    if (request.media.size() * request.fields.n > protocol::kMaxMediaItems) {
        return param_error("n",
                           "n is {} and there are {} images and videos; n times their number "
                           "must not exceed {}",
                           request.fields.n, request.media.size(), protocol::kMaxMediaItems);
    }
    return {};
}

void Frontend::Impl::begin(LoopState& state, const std::shared_ptr<net::HttpExchange>& exchange,
                           const std::shared_ptr<RequestRecord>& record, PreparedRequest request,
                           Deadline deadline) {
    AnswerHead head;
    head.id = ids.next(request.api == Api::kChat ? "chatcmpl-" : "cmpl-");
    head.created = clock.unix_seconds();
    head.model = request.fields.model;
    const auto generation = std::make_shared<Generation>(
        state.hub, exchange, record, std::move(request), std::move(head), deadline);
    record->abandon = [weak = std::weak_ptr<Generation>(generation)] {
        if (const auto g = weak.lock()) g->abandon();
    };
    generation->start();
}

void Frontend::Impl::ended(RequestRecord& record, int status, std::uint64_t body_bytes) {
    if (std::exchange(record.inflight, false)) {
        metrics.inflight().set(
            static_cast<double>(inflight.fetch_sub(1, std::memory_order_relaxed) - 1));
    }
    const TimePoint now = clock.now();
    metrics.request_ended(record.route, status, now - record.received);
    constexpr int kTooManyRequests = 429;
    constexpr int kServiceUnavailable = 503;
    if (record.offered != 0 && (status == kTooManyRequests || status == kServiceUnavailable)) {
        record.metrics->refused->add(record.offered);
    }
    if (options.access_log) log_access(record, status, body_bytes, now);
}

Frontend::Frontend(FrontendOptions options, runtime::LoopPool& loops, metrics::Registry& registry,
                   const Clock& clock) {
    const std::size_t threads = options.prepare_threads;
    impl_ = std::make_shared<Impl>(std::move(options), loops, registry, clock);
    impl_->open(threads);
}

Frontend::~Frontend() {
    // Their threads use models and engines, which the caller frees next.
    if (impl_->media) impl_->media->stop();
    impl_->pool->stop();
}

std::shared_ptr<const ModelDirectory> Frontend::models() const { return impl_->models(); }

void Frontend::add_model(ServedModel model) {
    std::vector<ServedModel> models = impl_->models()->models();
    models.push_back(std::move(model));
    set_models(std::move(models));
}

void Frontend::set_models(std::vector<ServedModel> models) {
    const std::scoped_lock one_at_a_time(impl_->replacing_mutex);
    // Looking through a vocabulary takes a while: requests go on with what there is.
    auto next = std::make_shared<const ModelDirectory>(
        std::move(models), *impl_->models(),
        [this](const ServedModel& model) { return impl_->metrics.model(model); });
    const std::scoped_lock lock(impl_->models_mutex);
    impl_->models_now.swap(next);
}

void Frontend::observe_fleet(std::function<void(codec::JsonWriter&)> append_value,
                             std::function<std::vector<std::string>()> concerns) {
    impl_->append_fleet = std::move(append_value);
    impl_->concerns = std::move(concerns);
}

void Frontend::observe_router(std::function<void(codec::JsonWriter&)> append_value,
                              RouterAction act) {
    impl_->append_router = std::move(append_value);
    impl_->act_on_router = std::move(act);
}

void Frontend::observe_concerns(std::function<std::vector<std::string>()> more) {
    impl_->more_concerns = std::move(more);
}

void Frontend::observe_planner(std::function<Result<std::string>(std::string_view)> get) {
    impl_->ask_planner = std::move(get);
}

std::vector<protocol::DemandTotals> Frontend::demand() const { return impl_->metrics.demand(); }

void Frontend::set_media(std::shared_ptr<media::MediaLoader> loader) {
    impl_->media = std::move(loader);
}

void Frontend::set_relay(std::shared_ptr<RequestRelay> relay) { impl_->relay = std::move(relay); }

void Frontend::observe_server(std::function<net::HttpServerStats()> stats) {
    impl_->metrics.add_http_server(std::move(stats));
}

void Frontend::set_ready(bool ready) {
    if (ready) {
        impl_->readiness.store(Readiness::kReady);
    } else {
        Readiness expected = Readiness::kReady;
        impl_->readiness.compare_exchange_strong(expected, Readiness::kDraining);
    }
}

net::HttpHandler Frontend::handler() {
    // Weak: the server keeps the handler, exchanges keep the server, and requests in work keep
    // exchanges.
    return [weak = std::weak_ptr<Impl>(impl_)](std::shared_ptr<net::HttpExchange> exchange) {
        if (const auto impl = weak.lock()) impl->handle(std::move(exchange));
    };
}

net::HttpErrorBody Frontend::error_body() {
    return [](int status, std::string_view message) {
        std::string body;
        append_error_json(body, message, map_status(status));
        return std::pair<std::string, std::string>(kJson, std::move(body));
    };
}

}  // namespace stator::frontend
