#include "stator/loadgen/server.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "stator/codec/json.h"
#include "stator/loadgen/answer.h"

namespace stator::loadgen {
namespace {

constexpr std::chrono::milliseconds kAskPeriod{50};
constexpr std::size_t kMaxReply = 4 * 1024 * 1024;
constexpr double kUsualTokensPerWord = 1.3;
constexpr std::uint32_t kFewWords = 20;
constexpr std::uint32_t kManyWords = 220;

struct Reply {
    int status = 0;
    std::string body;
};

/// A whole reply, for a thread that waits.
class Waiter final : public net::HttpCallHandler {
  public:
    void on_head(const net::HttpResponseHead& head) override { reply_.status = head.status; }
    void on_body(std::string_view piece, TimePoint) override {
        reply_.body += piece.substr(0, kMaxReply - std::min(kMaxReply, reply_.body.size()));
    }
    void on_end(const net::HttpFailure* failure, TimePoint) override {
        const std::scoped_lock lock(mutex_);
        if (failure != nullptr) failure_ = failure->error;
        ended_ = true;
        changed_.notify_all();
    }
    bool wait_a_while() {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, kAskPeriod, [this] { return ended_; });
    }
    Result<Reply> take() {
        if (failure_) return tl::unexpected(std::move(*failure_));
        return std::move(reply_);
    }

  private:
    Reply reply_;  // of the loop until the end
    std::mutex mutex_;
    std::condition_variable changed_;
    bool ended_ = false;
    std::optional<Error> failure_;
};

/// Runs `f` on the loop and waits for it.
void run_on(runtime::Loop& loop, const std::function<void()>& f) {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    loop.post([&] {
        f();
        const std::scoped_lock lock(mutex);
        done = true;
        changed.notify_all();
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done; });
}

class Probe {
  public:
    Probe(runtime::Loop& loop, const Clock& clock, const std::function<bool()>& cancelled)
        : loop_(loop), clock_(clock), cancelled_(cancelled) {}
    ~Probe() {
        run_on(loop_, [this] { pool_.reset(); });
    }
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;

    Result<void> open(const Server& server) {
        Result<void> outcome;
        run_on(loop_, [&] {
            auto pool = net::HttpPool::create(loop_, server.url, server.pool, clock_);
            if (pool) {
                pool_ = std::move(*pool);
            } else {
                outcome = tl::unexpected(std::move(pool.error()));
            }
        });
        return outcome;
    }

    Result<Reply> ask(net::HttpCallRequest request) {
        const auto waiter = std::make_shared<Waiter>();
        std::shared_ptr<net::HttpCall> call;
        run_on(loop_, [&] { call = pool_->start(std::move(request), waiter); });
        while (!waiter->wait_a_while()) {
            if (!cancelled_ || !cancelled_()) continue;
            run_on(loop_, [&] { call->cancel(); });
        }
        return waiter->take();
    }

  private:
    runtime::Loop& loop_;
    const Clock& clock_;
    const std::function<bool()>& cancelled_;
    std::unique_ptr<net::HttpPool> pool_;
};

Result<Server> server_of(const ServerOptions& options) {
    Server server;
    auto url = net::parse_http_url(options.url);
    if (!url) return tl::unexpected(std::move(url.error()));
    if (url->path.contains('?')) {
        return error(ErrorCode::kInvalidArgument, "the server's URL '{}' has a query", options.url);
    }
    while (url->path.ends_with('/')) url->path.pop_back();
    if (url->path.ends_with("/v1")) url->path.resize(url->path.size() - 3);
    server.url = std::move(*url);
    server.name = options.url;
    server.pool.headers = options.headers;
    server.pool.headers.emplace_back("Content-Type", "application/json");
    server.pool.headers.emplace_back("User-Agent", "stator-bench");
    if (!options.api_key.empty()) {
        server.pool.headers.emplace_back("Authorization", "Bearer " + options.api_key);
    }
    server.pool.connect_timeout = options.connect_timeout;
    server.pool.silence_timeout = options.silence_timeout;
    // Servers close what idles for seconds; one that resets a connection in use has failed.
    server.pool.stale_after = std::chrono::seconds(1);
    server.dialect.api = options.api;
    server.dialect.model = options.model;
    server.dialect.strict = options.strict;
    server.dialect.extra = options.extra;
    return server;
}

/// By far the most usual reason is that no server runs.
Error explained(Error e, const std::string& url) {
    if (e.code == ErrorCode::kCancelled) return e;
    e.message = fmt::format("No server answers at {}: {}", url, e.message);
    return e;
}

Error refusal(const Reply& reply, std::string_view what) {
    codec::JsonDocument json;
    Error e;
    e.code = reply.status == 401 || reply.status == 403 ? ErrorCode::kUnauthenticated
                                                        : ErrorCode::kUnavailable;
    e.message = fmt::format("The server refused {} with status {}: {}", what, reply.status,
                            error_message(json, reply.body));
    if (e.code == ErrorCode::kUnauthenticated) {
        e.message += " (give a key with --api-key or in STATOR_API_KEY)";
    }
    return e;
}

/// Always asked: it shows that somebody is there.
Result<void> find_model(Probe& probe, const ServerOptions& options, Server& server) {
    const auto reply = probe.ask({.path = "/v1/models"});
    if (!reply) return tl::unexpected(explained(reply.error(), options.url));
    if (!server.dialect.model.empty()) return {};
    if (reply->status != 200) return tl::unexpected(refusal(*reply, "the list of its models"));
    codec::JsonDocument json;
    if (const auto root = json.parse(reply->body)) {
        root->find("data").each_element([&](std::size_t, codec::JsonView model) {
            server.dialect.model = model.find("id").as_string().value_or("");
            return false;
        });
    }
    if (server.dialect.model.empty()) {
        return error(ErrorCode::kNotFound, "The server at {} lists no model; name one with --model",
                     options.url);
    }
    return {};
}

/// How many tokens a prompt of so many words has; none where the server does not say.
Result<std::optional<double>> count_tokens(Probe& probe, const Server& server,
                                           std::uint32_t words) {
    const auto reply = probe.ask({.method = "POST",
                                  .path = std::string(request_path(server.dialect.api)),
                                  .body = calibration_body(server.dialect, words)});
    if (!reply) return tl::unexpected(explained(reply.error(), server.name));
    if (reply->status != 200) return tl::unexpected(refusal(*reply, "a small request"));
    codec::JsonDocument json;
    StreamedAnswer answer(json, false);
    answer.feed(reply->body, TimePoint{});
    answer.end();
    if (answer.fault()) {
        return error(ErrorCode::kUnavailable,
                     "The server's answer to a small request is no good: {}",
                     answer.fault()->message);
    }
    if (!answer.usage() || answer.usage()->prompt_tokens == 0) return std::nullopt;
    return static_cast<double>(answer.usage()->prompt_tokens);
}

Result<void> calibrate(Probe& probe, Server& server) {
    server.dialect.tokens_per_word = kUsualTokensPerWord;
    const auto few = count_tokens(probe, server, kFewWords);
    if (!few) return tl::unexpected(few.error());
    const auto many = count_tokens(probe, server, kManyWords);
    if (!many) return tl::unexpected(many.error());
    if (!*few || !*many || **many <= **few) {
        server.warning = fmt::format(
            "The server does not say how many tokens a prompt has; a word is taken for {} tokens.",
            kUsualTokensPerWord);
        return {};
    }
    const double slope = (**many - **few) / (kManyWords - kFewWords);
    server.dialect.tokens_per_word = slope;
    server.dialect.frame_tokens = std::max(0.0, **few - slope * kFewWords);
    return {};
}

}  // namespace

Result<Server> find_server(ServerOptions options, runtime::Loop& loop, const Clock& clock,
                           const std::function<bool()>& cancelled) {
    auto server = server_of(options);
    if (!server) return server;
    Probe probe(loop, clock, cancelled);
    if (auto opened = probe.open(*server); !opened) return tl::unexpected(opened.error());
    if (auto found = find_model(probe, options, *server); !found) {
        return tl::unexpected(found.error());
    }
    if (options.api != Api::kTokens && options.calibrate) {
        if (auto counted = calibrate(probe, *server); !counted) {
            return tl::unexpected(counted.error());
        }
    } else {
        server->dialect.tokens_per_word = kUsualTokensPerWord;
    }
    return server;
}

}  // namespace stator::loadgen
