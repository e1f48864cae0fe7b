#include "stator/routing/remote_router.h"

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <future>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/net/http_pool.h"
#include "stator/runtime/asio.h"

namespace stator::routing {
namespace {

constexpr std::size_t kMaxAnswer = 64 * 1024;
constexpr std::size_t kMaxConnections = 64;  // on each loop
constexpr std::size_t kMaxWaiting = 4'096;
constexpr int kReleaseTries = 4;

/// Collects an answer, hands it over once.
class Reply final : public net::HttpCallHandler {
  public:
    using Take =
        std::function<void(const net::HttpFailure* failure, int status, const std::string& body)>;
    explicit Reply(Take take) : take_(std::move(take)) {}

    void on_head(const net::HttpResponseHead& head) override { status_ = head.status; }
    void on_body(std::string_view piece, TimePoint /*at*/) override {
        body_ += piece.substr(0, kMaxAnswer - std::min(kMaxAnswer, body_.size()));
    }
    void on_end(const net::HttpFailure* failure, TimePoint /*at*/) override {
        take_(failure, status_, body_);
    }

  private:
    Take take_;
    int status_ = 0;
    std::string body_;
};

std::string reserve_body(const std::string& pool, const protocol::GenerateRequest& request) {
    std::string out;
    out.reserve(256 + request.prompt.size() * 7);
    codec::JsonWriter w(out);
    w.begin_object().key("model").string(pool);
    w.key("max_tokens").number(request.max_tokens);
    if (request.priority != 0) w.key("priority").number(request.priority);
    if (!request.tenant.empty()) w.key("tenant").string(request.tenant);
    if (request.cache_salt != 0) w.key("cache_salt").number(request.cache_salt);
    if (!request.adapter.empty()) w.key("adapter").string(request.adapter);
    if (const auto* hints = request.hints.get(); hints != nullptr) {
        const auto list = [&](std::string_view name, const std::vector<std::string>& words) {
            if (words.empty()) return;
            w.key(name).begin_array();
            for (const std::string& word : words) w.string(word);
            w.end_array();
        };
        if (!hints->session.empty()) w.key("session").string(hints->session);
        if (hints->session_hard) w.key("session_hard").boolean(true);
        list("require", hints->required_labels);
        list("prefer", hints->preferred_labels);
        list("tolerate", hints->tolerated_taints);
        if (hints->expected_output_tokens != 0) {
            w.key("expected_output_tokens").number(hints->expected_output_tokens);
        }
    }
    w.key("tokens").begin_array();
    for (const auto token : request.prompt) w.number(token);
    w.end_array().end_object();
    return out;
}

Result<Advice> read_advice(const net::HttpFailure* failure, int status, const std::string& body) {
    if (failure != nullptr) return tl::unexpected(failure->error);
    codec::JsonDocument document;
    const auto root = document.parse(body);
    if (status != 200 || !root) {
        const auto said = root ? root->find("error").find("message").as_string() : std::nullopt;
        return error(ErrorCode::kUnavailable, "the router answered {}: {}", status,
                     said.value_or("no JSON"));
    }
    const auto worker = root->find("worker").as_string();
    const auto rank = root->find("rank").as_uint();
    const auto booking = root->find("booking").as_string();
    if (!worker || worker->empty() || !rank || *rank > 65'535 || !booking || booking->empty()) {
        return error(ErrorCode::kUnavailable, "the router's answer names no worker");
    }
    return Advice{std::string(*worker), static_cast<std::uint32_t>(*rank), std::string(*booking)};
}

}  // namespace

struct RemoteRouter::Impl : std::enable_shared_from_this<Impl> {
    Impl(RemoteRouterOptions o, runtime::LoopPool& l, metrics::Registry& r, const Clock& c)
        : options(std::move(o)),
          loops(l),
          clock(c),
          pools(l.size()),
          asked(r.counter("stator_router_remote_asked_total",
                          "Requests for which the shared router was asked.")),
          failed(r.counter("stator_router_remote_failed_total",
                           "Of these, those that it did not answer in time.")),
          seconds(r.histogram("stator_router_remote_seconds",
                              "Time until the shared router's answer.",
                              {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1})) {}

    void post(std::string action, std::string body, std::chrono::milliseconds within,
              Reply::Take take);
    void release(const std::string& booking, int tries);
    void count(bool ok, const std::string& why);
    [[nodiscard]] net::HttpPool* pool(std::size_t i);

    const RemoteRouterOptions options;
    runtime::LoopPool& loops;
    const Clock& clock;
    std::vector<std::unique_ptr<net::HttpPool>> pools;  ///< each of its loop
    std::atomic<std::size_t> turn{0};
    std::atomic<bool> stopped{false};
    std::mutex under_way_mutex;
    std::condition_variable none_under_way;
    std::size_t under_way = 0;
    std::atomic<std::uint32_t> failures{0};
    std::atomic<std::int64_t> rests_until_ns{0};
    metrics::Counter& asked;
    metrics::Counter& failed;
    metrics::Histogram& seconds;
};

/// On its loop. Null: it can't be made (and the log has said so), or all is over.
net::HttpPool* RemoteRouter::Impl::pool(std::size_t i) {
    if (stopped.load()) return nullptr;
    if (pools[i]) return pools[i].get();
    net::HttpPoolOptions o;
    o.max_connections = kMaxConnections;
    o.max_waiting = kMaxWaiting;
    o.connect_timeout = options.timeout;
    o.stale_after = std::chrono::milliseconds(1'000);
    o.headers.emplace_back("content-type", "application/json");
    if (!options.key.empty()) o.headers.emplace_back("authorization", "Bearer " + options.key);
    auto made = net::HttpPool::create(loops.at(i), options.url, std::move(o), clock);
    if (made) {
        pools[i] = std::move(*made);
    } else {
        log_error("The shared router can't be asked.", {{"reason", made.error().message}});
    }
    return pools[i].get();
}

void RemoteRouter::Impl::post(std::string action, std::string body,
                              std::chrono::milliseconds within, Reply::Take take) {
    const std::size_t i = turn.fetch_add(1, std::memory_order_relaxed) % loops.size();
    const auto not_sent = [](const Reply::Take& to) {
        const net::HttpFailure failure{
            net::HttpFailure::Kind::kNotSent,
            error(ErrorCode::kUnavailable, "the shared router is not asked any more").value()};
        to(&failure, 0, {});
    };
    {
        const std::scoped_lock lock(under_way_mutex);
        ++under_way;
    }
    const auto shared = std::make_shared<Reply::Take>(
        [self = shared_from_this(), take = std::move(take)](const net::HttpFailure* failure,
                                                            int status, const std::string& answer) {
            take(failure, status, answer);
            const std::scoped_lock lock(self->under_way_mutex);
            if (--self->under_way == 0) self->none_under_way.notify_all();
        });
    const bool posted =
        loops.at(i).post([self = shared_from_this(), i, action = std::move(action),
                          body = std::move(body), within, shared, not_sent]() mutable {
            net::HttpPool* to = self->pool(i);
            if (to == nullptr) return not_sent(*shared);
            net::HttpCallRequest call;
            call.method = "POST";
            call.path = "/router/" + action;
            call.body = std::move(body);
            call.deadline = Deadline::after(self->clock.now(), within);
            std::ignore = to->start(std::move(call), std::make_shared<Reply>(std::move(*shared)));
        });
    if (!posted) not_sent(*shared);
}

void RemoteRouter::Impl::count(bool ok, const std::string& why) {
    if (ok) {
        failures = 0;
        return;
    }
    failed.add();
    if (failures.fetch_add(1) + 1 < options.failures_before_rest) return;
    failures = 0;
    rests_until_ns = (clock.now() + options.rest).ns;
    log_warn("The shared router does not answer; this frontend chooses workers by itself.",
             {{"router", options.url.authority},
              {"reason", why},
              {"asked_again_in_ms", options.rest.count()}});
}

void RemoteRouter::Impl::release(const std::string& booking, int tries) {
    constexpr std::chrono::milliseconds kWithin{2'000};
    post("release", R"({"booking":")" + booking + R"("})", kWithin,
         [self = shared_from_this(), booking, tries](const net::HttpFailure* failure,
                                                     int /*status*/, const std::string& /*body*/) {
             if (failure == nullptr || tries <= 1 || self->stopped.load() ||
                 failure->kind == net::HttpFailure::Kind::kNotSent) {
                 return;
             }
             // Not on every loop is this called from one: the timer gets one of its own choice.
             auto& loop = self->loops.at(0);
             loop.post([self, booking, tries, &loop] {
                 const auto timer = std::make_shared<boost::asio::steady_timer>(
                     runtime::asio_context(loop), self->options.rest);
                 timer->async_wait(
                     [self, booking, tries, timer](const boost::system::error_code& e) {
                         if (!e) self->release(booking, tries - 1);
                     });
             });
         });
}

RemoteRouter::RemoteRouter(RemoteRouterOptions options, runtime::LoopPool& loops,
                           metrics::Registry& registry, const Clock& clock)
    : impl_(std::make_shared<Impl>(std::move(options), loops, registry, clock)) {}

RemoteRouter::~RemoteRouter() { stop(); }

void RemoteRouter::reserve(const std::string& pool, const protocol::GenerateRequest& request,
                           Done done) {
    Impl& m = *impl_;
    const TimePoint begin = m.clock.now();
    if (begin.ns < m.rests_until_ns.load()) {
        const bool posted = m.loops.at(0).post([done] {
            done(error(ErrorCode::kUnavailable, "the shared router rests after failures"));
        });
        if (!posted) done(error(ErrorCode::kUnavailable, "the loops have stopped"));
        return;
    }
    m.asked.add();
    m.post("reserve", reserve_body(pool, request), m.options.timeout,
           [self = impl_, begin, done = std::move(done)](const net::HttpFailure* failure,
                                                         int status, const std::string& body) {
               auto advice = read_advice(failure, status, body);
               // A router that says that all are full has answered.
               const bool answered = failure == nullptr && status < 500;
               self->count(advice.has_value() || answered,
                           advice ? std::string() : advice.error().message);
               if (advice) self->seconds.observe(to_seconds(self->clock.now() - begin));
               done(std::move(advice));
           });
}

void RemoteRouter::first_token(const std::string& booking,
                               std::optional<std::uint32_t> cached_tokens) {
    constexpr std::chrono::milliseconds kWithin{2'000};
    std::string body;
    codec::JsonWriter w(body);
    w.begin_object().key("booking").string(booking);
    if (cached_tokens) w.key("cached_tokens").number(*cached_tokens);
    w.end_object();
    impl_->post("first_token", std::move(body), kWithin,
                [](const net::HttpFailure*, int, const std::string&) {});
}

void RemoteRouter::release(const std::string& booking) { impl_->release(booking, kReleaseTries); }

void RemoteRouter::stop() {
    // What ended last is told to the router: else it would count as load there for minutes.
    constexpr std::chrono::milliseconds kMost{500};
    if (!impl_->stopped.load()) {
        std::unique_lock lock(impl_->under_way_mutex);
        impl_->none_under_way.wait_for(lock, kMost, [this] { return impl_->under_way == 0; });
    }
    if (impl_->stopped.exchange(true)) return;
    std::vector<std::future<void>> over;
    for (std::size_t i = 0; i < impl_->pools.size(); ++i) {
        const auto done = std::make_shared<std::promise<void>>();
        auto future = done->get_future();
        const bool posted = impl_->loops.at(i).post([self = impl_, i, done] {
            if (self->pools[i]) self->pools[i]->stop();
            self->pools[i].reset();
            done->set_value();
        });
        if (posted) over.push_back(std::move(future));
    }
    for (auto& f : over) f.wait();
}

}  // namespace stator::routing
