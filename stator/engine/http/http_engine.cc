#include "stator/engine/http/http_engine.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "stator/base/log.h"
#include "stator/codec/sse.h"
#include "stator/engine/dialects/answer_reader.h"
#include "stator/engine/dialects/engine_error.h"
#include "stator/runtime/asio.h"
#include "stator/runtime/loop.h"

namespace stator::engine {
namespace {

using net::HttpFailure;
using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;

constexpr std::size_t kMaxErrorBytes = 64 * 1024;
constexpr std::size_t kMaxMetricsBytes = 16 * 1024 * 1024;
constexpr int kFailuresUntilUnhealthy = 3;
constexpr std::uint32_t kRetryAfterMs = 1'000;
constexpr std::uint32_t kUntoldUntilAWord = 100;
constexpr std::size_t kMaxCanaryBytes = 64 * 1024;
constexpr protocol::TokenId kCanaryToken = 1;

/// A whole answer, for those that are not streamed.
class WholeAnswer final : public net::HttpCallHandler {
  public:
    using Done = std::function<void(int status, std::string body, const HttpFailure* failure)>;
    WholeAnswer(std::size_t most, Done done) : most_(most), done_(std::move(done)) {}
    void on_head(const net::HttpResponseHead& head) override { status_ = head.status; }
    void on_body(std::string_view piece, TimePoint /*at*/) override {
        body_.append(piece.substr(0, most_ - std::min(most_, body_.size())));
    }
    void on_end(const HttpFailure* failure, TimePoint /*at*/) override {
        done_(status_, std::move(body_), failure);
    }

  private:
    const std::size_t most_;
    const Done done_;
    int status_ = 0;
    std::string body_;
};

class HttpEngine;

/// A request on its way.
class Generation final : public net::HttpCallHandler,
                         public std::enable_shared_from_this<Generation> {
  public:
    Generation(HttpEngine& engine, const GenerateRequest& request, Dialect dialect,
               std::shared_ptr<StepSink> s)
        : id(request.id),
          sink(std::move(s)),
          prompt_tokens(static_cast<std::uint32_t>(request.prompt.size()) - request.resumed_tokens),
          deadline_(request.deadline),
          engine_(engine),
          reader_(dialect, request.top_logprobs >= 0) {}

    void on_head(const net::HttpResponseHead& head) override;
    void on_body(std::string_view piece, TimePoint at) override;
    void on_end(const HttpFailure* failure, TimePoint at) override;
    /// Ends it, unless it has ended.
    void end(FinishReason how, std::optional<Error> why);

    const protocol::RequestId id;
    const std::shared_ptr<StepSink> sink;
    const std::uint32_t prompt_tokens;
    std::shared_ptr<net::HttpCall> call;
    bool cancelled = false;

  private:
    void give(AnswerReader::Piece& piece);

    const Deadline deadline_;
    HttpEngine& engine_;
    AnswerReader reader_;
    codec::SseReader events_;
    AnswerReader::Piece piece_;
    int status_ = 0;
    unsigned retry_after_s_ = 0;
    std::string refusal_;
    bool told_prompt_ = false;
    bool ended_ = false;
};

class HttpEngine final : public Engine {
  public:
    HttpEngine(HttpEngineOptions options, const Clock& clock)
        : options_(std::move(options)), clock_(clock), loop_("engine") {}
    ~HttpEngine() override {
        stop(Deadline::at({}));
        loop_.stop();
        timer_.reset();
        pool_.reset();
    }

    Result<void> start() {
        net::HttpPoolOptions pool;
        pool.max_connections = options_.max_connections;
        pool.max_waiting = std::size_t{options_.info.max_running} + options_.info.max_waiting + 16;
        pool.connect_timeout = options_.connect_timeout;
        pool.silence_timeout = options_.silence_timeout;
        pool.headers = {{"Accept", "*/*"}};
        if (!options_.key.empty())
            pool.headers.emplace_back("Authorization", "Bearer " + options_.key);
        auto made = net::HttpPool::create(loop_, options_.url, pool, clock_);
        if (!made) return tl::unexpected<Error>(std::move(made.error()));
        pool_ = std::move(*made);
        timer_.emplace(runtime::asio_context(loop_));
        last_token_ = clock_.now();
        loop_.start();
        loop_.post([this] { look(); });
        return {};
    }

    [[nodiscard]] const EngineInfo& info() const override { return options_.info; }

    [[nodiscard]] Result<void> submit(GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override {
        if (request.leg != protocol::Leg::kWhole) {
            return error(ErrorCode::kUnsupported, "this engine computes whole requests only");
        }
        if (!healthy_) {
            auto down = error(ErrorCode::kUnavailable, "the engine does not answer");
            down.value().retryable = true;
            return down;
        }
        if (options_.info.context_tokens > 0 &&
            request.prompt.size() + request.max_tokens > options_.info.context_tokens) {
            return error(ErrorCode::kInvalidArgument,
                         "{} prompt and {} output tokens do not fit the engine's context of {}",
                         request.prompt.size(), request.max_tokens, options_.info.context_tokens);
        }
        net::HttpCallRequest call{.method = "POST",
                                  .path = std::string(path_of(options_.dialect.dialect)),
                                  .headers = {{"Content-Type", "application/json"}},
                                  .deadline = request.deadline};
        const std::string name = fmt::format("stator-{:x}-{:x}", tag_, request.id.value);
        auto written = append_request_body(call.body, request, options_.dialect, name);
        if (!written) return written;
        call.headers.emplace_back("X-Request-Id", name);
        if (options_.rank) {
            call.headers.emplace_back("X-data-parallel-rank", std::to_string(*options_.rank));
        }
        if (!request.traceparent.empty()) {
            call.headers.emplace_back("traceparent", request.traceparent);
        }
        const std::size_t most = std::size_t{options_.info.max_running} + options_.info.max_waiting;
        {
            const std::scoped_lock lock(mutex_);
            if (stopping_) return error(ErrorCode::kUnavailable, "the engine is stopping");
            if (accepted_ >= most) {
                auto full = error(ErrorCode::kOverloaded, "{} requests are with the engine", most);
                full.value().retryable = true;
                full.value().retry_after_ms = kRetryAfterMs;
                return full;
            }
            ++accepted_;
        }
        if (options_.on_submit) options_.on_submit(request);
        auto generation =
            std::make_shared<Generation>(*this, request, options_.dialect.dialect, std::move(sink));
        loop_.post([this, generation, call = std::move(call)]() mutable {
            live_.emplace(generation->id, generation);
            generation->call = pool_->start(std::move(call), generation);
        });
        return {};
    }

    void cancel(protocol::RequestId id) override {
        loop_.post([this, id] {
            const auto found = live_.find(id);
            if (found == live_.end()) return;
            const auto generation = found->second;
            generation->cancelled = true;
            generation->call->cancel();
        });
    }

    [[nodiscard]] protocol::LoadReport load() const override {
        const std::scoped_lock lock(mutex_);
        protocol::LoadReport l;
        l.running_limit = options_.info.max_running;
        l.waiting_limit = options_.info.max_waiting;
        // Ours, and what others have sent there.
        const auto ours = static_cast<std::uint32_t>(accepted_);
        const std::uint32_t shown = seen_.running + seen_.waiting;
        const std::uint32_t all = std::max(ours, shown);
        l.waiting = std::max(seen_.waiting, all - std::min(all, l.running_limit));
        l.running = all - std::min(all, l.waiting);
        l.kv_total_tokens = options_.kv_total_tokens;
        l.kv_used_tokens =
            static_cast<std::uint64_t>(seen_.kv_usage * static_cast<double>(l.kv_total_tokens));
        return l;
    }

    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override {
        const std::scoped_lock lock(mutex_);
        return passes_;
    }

    [[nodiscard]] bool healthy() const override { return healthy_; }

    void stop(Deadline deadline) override {
        {
            std::unique_lock lock(mutex_);
            stopping_ = true;
            const auto none = [this] { return accepted_ == 0; };
            if (deadline.is_never()) {
                changed_.wait(lock, none);
            } else {
                changed_.wait_for(lock, deadline.left(clock_.now()), none);
            }
        }
        loop_.post([this] {
            // What is left ends with kCancelled, in later turns.
            for (const auto& [id, generation] : live_) generation->cancelled = true;
            timer_->cancel();
            pool_->stop();
        });
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return accepted_ == 0; });
    }

    // From generations, on the loop.
    [[nodiscard]] bool passed(Deadline deadline) const { return deadline.reached(clock_.now()); }
    StepBatch& batch_of(const std::shared_ptr<StepSink>& sink) {
        if (batches_.empty()) {
            loop_.at_turn_end([this] { flush(); });
        }
        for (auto& [known, batch] : batches_) {
            if (known == sink) return batch;
        }
        return batches_.emplace_back(sink, StepBatch{}).second;
    }
    /// Whether this engine tells how much of a prompt it had: vLLM leaves out a 0.
    [[nodiscard]] bool tells_cached(const AnswerReader::Piece& piece) {
        tells_cached_ = tells_cached_ || piece.cached_told;
        if (!tells_cached_ && piece.finish && ++untold_ == kUntoldUntilAWord &&
            options_.dialect.dialect != Dialect::kSglang) {
            log_info(
                "The engine has not said of any prompt how much of it was cached; vLLM does so "
                "with --enable-prompt-tokens-details.",
                {{"engine", options_.url.authority}, {"requests", untold_}});
        }
        return tells_cached_;
    }
    /// A request has lost its connection.
    void doubt() {
        doubted_ = true;
        timer_->cancel();
    }
    void count(const AnswerReader::Piece& piece, bool first) {
        if (!piece.tokens.empty()) lives();
        const std::scoped_lock lock(mutex_);
        passes_.decode_tokens += piece.tokens.size();
        if (first) {
            passes_.cached_tokens += piece.cached_tokens;
            passes_.prefill_tokens +=
                piece.prompt_tokens - std::min(piece.prompt_tokens, piece.cached_tokens);
        }
    }
    void ended(protocol::RequestId id) {
        live_.erase(id);
        ++ended_;
    }

  private:
    void flush() {
        auto batches = std::exchange(batches_, {});
        const std::size_t ended = std::exchange(ended_, 0);
        for (auto& [sink, batch] : batches) sink->on_step(std::move(batch));
        const std::scoped_lock lock(mutex_);
        ++passes_.steps;
        accepted_ -= ended;
        if (ended > 0) changed_.notify_all();
    }

    /// How the engine is, now and again.
    void look() {
        const auto heard = [this](int status, std::string body, const HttpFailure* failure) {
            if (failure != nullptr && failure->kind == HttpFailure::Kind::kCancelled) return;
            if (failure == nullptr && status == 200) take_metrics(body);
            bool busy = false;
            {
                const std::scoped_lock lock(mutex_);
                if (stopping_) return;
                busy = accepted_ > 0 || seen_.running + seen_.waiting > 0 || failures_ > 0;
            }
            send_canary();
            timer_->expires_after(busy ? options_.look_every : options_.look_idle_every);
            timer_->async_wait([this](const boost::system::error_code& ec) {
                if (ec && !doubted_) return;
                {
                    const std::scoped_lock lock(mutex_);
                    if (stopping_) return;
                }
                look();
            });
        };
        const auto asked = [this, heard](int status, const std::string& /*body*/,
                                         const HttpFailure* failure) {
            take_health(failure == nullptr ? status : 0);
            call({.path = "/metrics"}, kMaxMetricsBytes, heard);
        };
        call({.path = "/health"}, kMaxErrorBytes, asked);
    }
    void call(net::HttpCallRequest request, std::size_t most, WholeAnswer::Done done) {
        request.deadline = Deadline::after(
            clock_.now(), std::max(options_.look_idle_every, options_.connect_timeout));
        (void)pool_->start(std::move(request),
                           std::make_shared<WholeAnswer>(most, std::move(done)));
    }
    void take_health(int status) {
        // Servers without such a route are as healthy as they answer.
        const bool well = status == 200 || status == 404;
        failures_ = well ? 0 : failures_ + 1;
        if (!well) {
            doubted_ = true;
        } else if (std::exchange(doubted_, false) && options_.on_back) {
            options_.on_back();
        }
        show_health(fmt::format("its /health gives {}",
                                status == 0 ? "no answer" : std::to_string(status)));
    }
    void show_health(std::string_view why) {
        const bool now = failures_ < kFailuresUntilUnhealthy && !dead_;
        if (now == healthy_.exchange(now)) return;
        if (now) {
            log_info("The engine is well again.", {{"engine", options_.url.authority}});
        } else {
            log_warn("The engine is not well.",
                     {{"engine", options_.url.authority}, {"reason", why}});
        }
        if (options_.on_health) options_.on_health(now, now ? std::string_view() : why);
    }
    /// It has generated something.
    void lives() {
        last_token_ = clock_.now();
        if (!std::exchange(dead_, false)) return;
        show_health({});
    }
    /// One token, where none has come for long.
    void send_canary() {
        if (options_.canary_every.count() == 0 || canary_out_ || failures_ > 0) return;
        const TimePoint now = clock_.now();
        if (!dead_ && now - last_token_ < options_.canary_every) return;
        GenerateRequest one;
        one.prompt = {kCanaryToken};
        one.sampling.temperature = 0;
        one.max_tokens = 1;
        one.ignore_eos = true;
        net::HttpCallRequest request{.method = "POST",
                                     .path = std::string(path_of(options_.dialect.dialect)),
                                     .headers = {{"Content-Type", "application/json"}},
                                     .deadline = Deadline::after(now, options_.canary_within)};
        const std::string name = fmt::format("stator-{:x}-canary-{}", tag_, canaries_++);
        if (!append_request_body(request.body, one, options_.dialect, name)) return;
        if (options_.rank) {
            request.headers.emplace_back("X-data-parallel-rank", std::to_string(*options_.rank));
        }
        canary_out_ = true;
        const auto heard = [this, now](int status, const std::string& /*body*/,
                                       const HttpFailure* failure) {
            canary_out_ = false;
            // What is refused is answered, too; no connection is for /health to find.
            if (failure == nullptr && status < 500) return lives();
            if (last_token_ > now) return;
            if (failure != nullptr && failure->kind != HttpFailure::Kind::kTimeout) return;
            dead_ = true;
            show_health(
                failure != nullptr
                    ? fmt::format("no token came within {} ms", options_.canary_within.count())
                    : fmt::format("asked for a token it answered {}", status));
        };
        (void)pool_->start(std::move(request),
                           std::make_shared<WholeAnswer>(kMaxCanaryBytes, heard));
    }
    void take_metrics(const std::string& text) {
        const auto ranks = read_engine_metrics(text);
        const std::scoped_lock lock(mutex_);
        seen_ = {};
        for (const EngineRankMetrics& r : ranks) {
            if (options_.rank && r.rank != *options_.rank) continue;
            seen_.running += r.running;
            seen_.waiting += r.waiting;
            seen_.kv_usage = std::max(seen_.kv_usage, r.kv_usage);
        }
    }

    const HttpEngineOptions options_;
    const Clock& clock_;
    const std::uint64_t tag_ = static_cast<std::uint64_t>(clock_.now().ns);
    runtime::Loop loop_;
    std::atomic<bool> healthy_{true};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t accepted_ = 0;
    bool stopping_ = false;
    EngineRankMetrics seen_;
    protocol::ForwardPassMetrics passes_;

    // Of the loop.
    std::unique_ptr<net::HttpPool> pool_;
    std::optional<boost::asio::steady_timer> timer_;
    std::unordered_map<protocol::RequestId, std::shared_ptr<Generation>> live_;
    std::vector<std::pair<std::shared_ptr<StepSink>, StepBatch>> batches_;
    std::size_t ended_ = 0;
    int failures_ = 0;
    bool doubted_ = false;
    bool tells_cached_ = false;
    std::uint32_t untold_ = 0;
    TimePoint last_token_;
    std::uint64_t canaries_ = 0;
    bool canary_out_ = false;
    bool dead_ = false;
};

void Generation::on_head(const net::HttpResponseHead& head) {
    status_ = head.status;
    const std::string_view wait = head.header("retry-after");
    for (const char c : wait.substr(0, 6)) {
        if (c < '0' || c > '9') break;
        retry_after_s_ = retry_after_s_ * 10 + static_cast<unsigned>(c - '0');
    }
}

void Generation::on_body(std::string_view piece, TimePoint /*at*/) {
    if (ended_) return;
    if (status_ != 200) {
        refusal_.append(
            piece.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, refusal_.size())));
        return;
    }
    if (auto ok = events_.feed(piece); !ok) {
        end(FinishReason::kError, error(ErrorCode::kDataLoss, "{}", ok.error().message).value());
        call->cancel();
        return;
    }
    while (const auto event = events_.next()) {
        auto ok = reader_.take(event->data, piece_);
        if (!ok) {
            end(FinishReason::kError, std::move(ok.error()));
            call->cancel();
            return;
        }
        give(piece_);
        if (ended_) return;
    }
}

void Generation::on_end(const HttpFailure* failure, TimePoint /*at*/) {
    const auto keep = shared_from_this();
    if (ended_) return;
    if (cancelled) return end(FinishReason::kCancelled, {});
    if (failure == nullptr && status_ == 200) {
        auto ok = reader_.end(piece_);
        if (ok) return give(piece_);
        ok.error().retryable = true;
        return end(FinishReason::kError, std::move(ok.error()));
    }
    if (failure == nullptr) {
        return end(FinishReason::kError, engine_error(status_, refusal_, retry_after_s_));
    }
    Error why = failure->error;
    switch (failure->kind) {
        case HttpFailure::Kind::kCancelled:
            return end(FinishReason::kCancelled, {});
        case HttpFailure::Kind::kTimeout:
            if (engine_.passed(deadline_)) return end(FinishReason::kCancelled, {});
            [[fallthrough]];
        case HttpFailure::Kind::kConnect:
        case HttpFailure::Kind::kLost:
        case HttpFailure::Kind::kCutShort:
        case HttpFailure::Kind::kNotSent:
            why.code = ErrorCode::kUnavailable;
            why.retryable = true;
            engine_.doubt();
            break;
        case HttpFailure::Kind::kBadAnswer:
            why.code = ErrorCode::kDataLoss;
            break;
    }
    end(FinishReason::kError, std::move(why));
}

void Generation::give(AnswerReader::Piece& piece) {
    if (piece.tokens.empty() && !piece.finish) return;
    StepBatch& batch = engine_.batch_of(sink);
    StepEvent event;
    event.id = id;
    event.first = static_cast<std::uint32_t>(batch.tokens.size());
    event.count = static_cast<std::uint32_t>(piece.tokens.size());
    const auto top = static_cast<std::uint32_t>(batch.top.size());
    for (protocol::TokenOutput token : piece.tokens) {
        token.top_first += top;
        batch.tokens.push_back(token);
    }
    batch.top.insert(batch.top.end(), piece.top.begin(), piece.top.end());
    const bool first = !told_prompt_ && !piece.tokens.empty();
    const bool tells = engine_.tells_cached(piece);
    if ((first && piece.cached_told) || (piece.finish && tells)) {
        event.prompt_tokens = prompt_tokens;
        event.cached_tokens = std::min(piece.cached_tokens, prompt_tokens);
    }
    told_prompt_ = told_prompt_ || first;
    event.finish = piece.finish;
    event.error = std::move(piece.error);
    engine_.count(piece, first);
    const bool last = event.finish.has_value();
    batch.events.push_back(std::move(event));
    if (!last) return;
    ended_ = true;
    const auto keep = shared_from_this();
    engine_.ended(id);
}

void Generation::end(FinishReason how, std::optional<Error> why) {
    AnswerReader::Piece piece;
    piece.finish = how;
    piece.error = std::move(why);
    give(piece);
}

}  // namespace

Result<std::unique_ptr<Engine>> make_http_engine(HttpEngineOptions options, const Clock& clock) {
    auto engine = std::make_unique<HttpEngine>(std::move(options), clock);
    if (auto ok = engine->start(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return engine;
}

}  // namespace stator::engine
