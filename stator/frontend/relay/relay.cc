#include "stator/frontend/relay/relay.h"

#include <algorithm>
#include <array>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <utility>

#include "stator/base/log.h"
#include "stator/frontend/error_mapping.h"
#include "stator/frontend/error_response.h"
#include "stator/frontend/relay/upstreams.h"
#include "stator/net/http_pool.h"
#include "stator/runtime/asio.h"

namespace stator::frontend {
namespace {

using net::HttpFailure;

/// Headers of requests and answers that go on. All others are of one connection alone, or of this
/// server's own making.
constexpr std::array<std::string_view, 7> kPassedUp = {
    "accept",         "traceparent", "tracestate", "baggage", "openai-organization",
    "openai-project", "user-agent"};
constexpr std::array<std::string_view, 3> kPassedDown = {"retry-after", "www-authenticate",
                                                         "cache-control"};

bool same_name(std::string_view name, std::string_view lower) {
    return std::ranges::equal(name, lower, [](char a, char b) {
        return (a >= 'A' && a <= 'Z' ? static_cast<char>(a - 'A' + 'a') : a) == b;
    });
}

bool is_one_of(std::string_view name, std::span<const std::string_view> lower) {
    return std::ranges::any_of(lower, [&](std::string_view n) { return same_name(name, n); });
}

Error unreachable(std::string why) {
    Error e;
    e.code = ErrorCode::kUnavailable;
    e.message = std::move(why);
    e.retryable = true;
    e.retry_after_ms = 1000;
    return e;
}

}  // namespace

struct Relay::Impl : std::enable_shared_from_this<Relay::Impl> {
    Impl(RelayOptions o, runtime::LoopPool& l, metrics::Registry& r, const Clock& c)
        : options(std::move(o)),
          loops(l),
          clock(c),
          upstreams(options.upstreams, r),
          pools(l.size()),
          timer(runtime::asio_context(l.at(0))) {
        for (auto& of_loop : pools) of_loop.resize(upstreams.size());
    }

    [[nodiscard]] std::size_t index_of(const runtime::Loop& loop) const;
    [[nodiscard]] net::HttpPool* pool(std::size_t loop, std::size_t upstream);
    void probe_all();
    void probe_later();
    void stop();

    const RelayOptions options;
    runtime::LoopPool& loops;
    const Clock& clock;
    Upstreams upstreams;
    /// By loop and upstream; each row on its loop alone.
    std::vector<std::vector<std::unique_ptr<net::HttpPool>>> pools;
    boost::asio::steady_timer timer;  ///< on loop 0
    std::atomic<bool> stopped{false};
};

namespace {

/// The list of models an upstream gives.
class Probe final : public net::HttpCallHandler {
  public:
    Probe(std::weak_ptr<Relay::Impl> relay, std::size_t upstream)
        : relay_(std::move(relay)), upstream_(upstream) {}

    void on_head(const net::HttpResponseHead& head) override { status_ = head.status; }
    void on_body(std::string_view piece, TimePoint /*at*/) override {
        constexpr std::size_t kMost = 1U << 20U;
        if (body_.size() + piece.size() <= kMost) body_ += piece;
    }
    void on_end(const HttpFailure* failure, TimePoint /*at*/) override {
        const auto relay = relay_.lock();
        if (!relay || relay->stopped) return;
        if (failure != nullptr) return relay->upstreams.failed(upstream_, failure->error.message);
        std::vector<std::string> models = read_model_list(body_);
        if (status_ / 100 != 2 || models.empty()) {
            return relay->upstreams.failed(
                upstream_,
                fmt::format("GET /v1/models answered {} and no list of models", status_));
        }
        relay->upstreams.answered(upstream_, std::move(models));
    }

  private:
    std::weak_ptr<Relay::Impl> relay_;
    std::size_t upstream_;
    int status_ = 0;
    std::string body_;
};

/// One request on its way, over as many upstreams as it takes. Lives on the loop of its client.
class Passage final : public net::HttpCallHandler, public std::enable_shared_from_this<Passage> {
  public:
    Passage(std::shared_ptr<Relay::Impl> relay, RequestRelay::Request request)
        : relay_(std::move(relay)),
          request_(std::move(request)),
          loop_(relay_->index_of(request_.exchange->loop())),
          tried_(relay_->upstreams.size(), false) {}
    ~Passage() override { leave(); }

    void start() {
        upstream_ = relay_->upstreams.choose(request_.model, tried_);
        net::HttpPool* pool =
            upstream_ == Upstreams::kNone ? nullptr : relay_->pool(loop_, upstream_);
        if (pool == nullptr) {
            upstream_ = Upstreams::kNone;
            return respond_error(
                *request_.exchange,
                unreachable(last_why_.empty()
                                ? fmt::format("no upstream that serves the model \"{}\" can be "
                                              "reached; try again soon",
                                              request_.model)
                                : fmt::format("no upstream answered: {}", last_why_)));
        }
        tried_[upstream_] = true;
        Upstream& u = relay_->upstreams.at(upstream_);
        u.in_work.fetch_add(1, std::memory_order_relaxed);
        u.requests->add();
        net::HttpCallRequest call;
        call.method = "POST";
        call.path = request_.path;
        call.headers = headers();
        // Kept only as long as another upstream may have to be asked.
        const bool last = std::ranges::count(tried_, false) == 0;
        call.body = last ? std::move(request_.body) : request_.body;
        call_ = pool->start(std::move(call), shared_from_this());
    }

    void abandon() {
        abandoned_ = true;
        if (call_) call_->cancel();
    }

    void on_head(const net::HttpResponseHead& head) override {
        begun_ = true;
        request_.body = {};
        status_ = head.status;
        content_type_ = head.header("content-type");
        for (const auto& [name, value] : head.headers) {
            if (is_one_of(name, kPassedDown)) request_.exchange->add_header(name, value);
        }
        whole_ = !head.header("content-length").empty();
        if (whole_) return;
        request_.exchange->begin_stream(status_, content_type_);
    }

    void on_body(std::string_view piece, TimePoint at) override {
        if (!std::exchange(first_told_, true) && request_.on_first_byte) request_.on_first_byte(at);
        if (!whole_) return request_.exchange->write(piece);
        if (answer_.size() + piece.size() > relay_->options.max_answer_bytes) {
            too_long_ = true;
            return call_->cancel();
        }
        answer_ += piece;
    }

    void on_end(const HttpFailure* failure, TimePoint /*at*/) override {
        const auto self = shared_from_this();
        call_.reset();
        if (failure == nullptr) {
            leave();
            if (whole_) return request_.exchange->respond(status_, content_type_, answer_);
            return request_.exchange->end_stream();
        }
        if (abandoned_) return leave();
        relay_->upstreams.at(upstream_).failures->add();
        const auto kind = failure->kind;
        const bool gone = kind == HttpFailure::Kind::kConnect || kind == HttpFailure::Kind::kLost;
        if (gone) relay_->upstreams.failed(upstream_, failure->error.message);
        leave();
        if (!begun_) {
            last_why_ = failure->error.message;
            if (gone && !relay_->stopped) return start();
            return respond_error(*request_.exchange, failure->error);
        }
        const Error why =
            too_long_
                ? unreachable("the upstream's answer is too long")
                : unreachable("the upstream's answer was cut short: " + failure->error.message);
        if (whole_) return respond_error(*request_.exchange, why);
        if (content_type_.starts_with("text/event-stream")) {
            std::string event = "data: ";
            append_error_json(event, why);
            event += "\n\n";
            request_.exchange->write(event);
            return request_.exchange->end_stream();
        }
        request_.exchange->abort();
    }

  private:
    [[nodiscard]] net::HttpHeaders headers() const {
        net::HttpHeaders out;
        out.emplace_back("content-type", "application/json");
        out.emplace_back("x-request-id", request_.id);
        for (const net::HttpHeader& h : request_.exchange->request().headers) {
            const bool key = relay_->options.pass_authorization && relay_->options.key.empty() &&
                             same_name(h.name, "authorization");
            if (key || is_one_of(h.name, kPassedUp)) out.emplace_back(h.name, h.value);
        }
        return out;
    }

    void leave() {
        if (upstream_ == Upstreams::kNone) return;
        relay_->upstreams.at(std::exchange(upstream_, Upstreams::kNone))
            .in_work.fetch_sub(1, std::memory_order_relaxed);
    }

    std::shared_ptr<Relay::Impl> relay_;
    RequestRelay::Request request_;
    std::size_t loop_;
    std::vector<bool> tried_;
    std::size_t upstream_ = Upstreams::kNone;
    std::shared_ptr<net::HttpCall> call_;
    std::string last_why_;
    int status_ = 0;
    std::string content_type_;
    std::string answer_;  ///< of one that is not streamed
    bool begun_ = false;
    bool whole_ = false;
    bool first_told_ = false;
    bool too_long_ = false;
    bool abandoned_ = false;
};

}  // namespace

std::size_t Relay::Impl::index_of(const runtime::Loop& loop) const {
    for (std::size_t i = 0; i < loops.size(); ++i) {
        if (&loops.at(i) == &loop) return i;
    }
    return 0;
}

/// On its loop. Null: stopped, or it can't be made (and the log has said so).
net::HttpPool* Relay::Impl::pool(std::size_t loop, std::size_t upstream) {
    if (stopped) return nullptr;
    auto& kept = pools[loop][upstream];
    if (kept) return kept.get();
    net::HttpPoolOptions o;
    o.max_connections = options.max_connections;
    o.connect_timeout = options.connect_timeout;
    o.silence_timeout = options.silence_timeout;
    o.read_bytes = 32 * 1024;
    if (!options.key.empty()) o.headers.emplace_back("authorization", "Bearer " + options.key);
    auto made =
        net::HttpPool::create(loops.at(loop), upstreams.at(upstream).url, std::move(o), clock);
    if (!made) {
        log_error("An upstream can't be used.", {{"upstream", upstreams.at(upstream).url.authority},
                                                 {"reason", made.error().message}});
        return nullptr;
    }
    kept = std::move(*made);
    return kept.get();
}

void Relay::Impl::probe_all() {
    for (std::size_t i = 0; i < upstreams.size(); ++i) {
        net::HttpPool* to = pool(0, i);
        if (to == nullptr) continue;
        net::HttpCallRequest call;
        call.path = "/v1/models";
        call.deadline =
            Deadline::after(clock.now(), std::max(options.connect_timeout, options.probe_interval));
        std::ignore = to->start(std::move(call), std::make_shared<Probe>(weak_from_this(), i));
    }
    probe_later();
}

void Relay::Impl::probe_later() {
    timer.expires_after(options.probe_interval);
    timer.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (!ec && self && !self->stopped) self->probe_all();
    });
}

void Relay::Impl::stop() {
    if (stopped.exchange(true)) return;
    for (std::size_t i = 0; i < loops.size(); ++i) {
        std::promise<void> done;
        const bool posted = loops.at(i).post([this, i, &done] {
            if (i == 0) timer.cancel();
            for (auto& pool : pools[i]) {
                if (pool) pool->stop();
            }
            // Handlers are told in later turns.
            loops.at(i).post([this, i, &done] {
                pools[i].clear();
                done.set_value();
            });
        });
        if (posted) done.get_future().wait();
    }
}

Relay::Relay(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Relay::~Relay() { stop(); }

std::shared_ptr<Relay> Relay::start(RelayOptions options, runtime::LoopPool& loops,
                                    metrics::Registry& registry, const Clock& clock) {
    auto impl = std::make_shared<Impl>(std::move(options), loops, registry, clock);
    loops.at(0).post([impl] { impl->probe_all(); });
    return std::shared_ptr<Relay>(new Relay(std::move(impl)));
}

bool Relay::serves(std::string_view model) const { return impl_->upstreams.serves(model); }

std::vector<std::string> Relay::models() const { return impl_->upstreams.models(); }

bool Relay::healthy() const { return impl_->upstreams.any_up(); }

std::function<void()> Relay::pass_on(Request request) {
    const auto passage = std::make_shared<Passage>(impl_, std::move(request));
    passage->start();
    return [weak = std::weak_ptr<Passage>(passage)] {
        if (const auto p = weak.lock()) p->abandon();
    };
}

void Relay::append_json(codec::JsonWriter& w) const {
    w.begin_array();
    for (std::size_t i = 0; i < impl_->upstreams.size(); ++i) {
        const Upstream& u = impl_->upstreams.at(i);
        w.begin_object().key("url").string(u.url.authority).key("up").boolean(u.up.load());
        w.key("in_work").number(u.in_work.load()).end_object();
    }
    w.end_array();
}

void Relay::stop() { impl_->stop(); }

}  // namespace stator::frontend
