#include "stator/engine/http/http_engine.h"

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/engine/http/generation.h"
#include "stator/engine/http/media_errand.h"
#include "stator/engine/http/prefill_leg.h"
#include "stator/engine/http/whole_answer.h"
#include "stator/runtime/asio.h"

namespace stator::engine {
namespace {

using net::HttpFailure;
using protocol::GenerateRequest;
using protocol::Leg;
using protocol::StepBatch;
using protocol::StepEvent;

constexpr std::size_t kMaxMetricsBytes = 16 * 1024 * 1024;
constexpr int kFailuresUntilUnhealthy = 3;
/// Requests in a row, without a token between them, that it has failed at: then it gets none for a
/// while, since one that fails at once would look idle, and be sent all of them.
constexpr int kFailuresUntilRest = 8;
constexpr std::chrono::seconds kRest{5};
constexpr std::uint32_t kRetryAfterMs = 1'000;
constexpr std::uint32_t kUntoldUntilAWord = 100;
constexpr std::size_t kMaxCanaryBytes = 64 * 1024;
constexpr protocol::TokenId kCanaryToken = 1;

std::uint64_t random_bits() {
    std::uint64_t n = 0;
    STATOR_CHECK(::getrandom(&n, sizeof n, 0) == static_cast<ssize_t>(sizeof n),
                 "the kernel has random numbers");
    return n;
}

DialectOptions reporting(DialectOptions dialect) {
    dialect.report_full = true;
    return dialect;
}

class HttpEngine final : public Engine, public CallHost {
  public:
    HttpEngine(HttpEngineOptions options, const Clock& clock)
        : options_(std::move(options)),
          clock_(clock),
          desk_(options_.media, options_.dialect),
          loop_("engine") {}
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
        if (!healthy_) {
            auto down = error(ErrorCode::kUnavailable, "the engine does not answer");
            down.value().retryable = true;
            return down;
        }
        if (auto ok = check(request); !ok) return ok;
        if (request.leg == Leg::kEncode) return encode(std::move(request), std::move(sink));
        const KvConnector connector = options_.dialect.connector;
        std::string object;
        if (request.leg == Leg::kPrefill && is_early(connector)) {
            MeetingPlace place = options_.meeting;
            place.rank = options_.dialect.rank;
            object = mint_object(connector, place, random_bits());
            if (auto ok = check_object(connector, object); !ok) return ok;
        } else if (usable(request)) {
            object = request.handoff->object;
        } else if (options_.decodes_only && request.leg != Leg::kPrefill) {
            auto no = error(ErrorCode::kUnavailable, "this engine computes no prompts");
            no.value().retryable = true;
            return no;
        }
        if (request.media.empty()) {
            auto ready = prepare(request, std::move(object), nullptr, std::move(sink));
            if (!ready) return tl::unexpected<Error>(std::move(ready.error()));
            if (auto ok = enter(); !ok) return ok;
            if (options_.on_submit) options_.on_submit(request);
            loop_.post([this, ready = std::move(*ready)]() mutable { launch(std::move(ready)); });
            return {};
        }
        return submit_media(std::move(request), std::move(object), std::move(sink));
    }

    void cancel(protocol::RequestId id) override {
        loop_.post([this, id] {
            const auto found = live_.find(id);
            if (found == live_.end()) return;
            const auto active = found->second;
            active->cancel();
        });
    }

    void release(std::shared_ptr<const protocol::Handoff> handoff) override {
        loop_.post([this, id = handoff->id] {
            const auto found = handed_.find(id);
            if (found == handed_.end()) return;
            const auto active = found->second;
            active->cancel();
        });
    }

    [[nodiscard]] protocol::LoadReport load() const override {
        const std::scoped_lock lock(mutex_);
        protocol::LoadReport l;
        l.running_limit = options_.info.max_running;
        l.waiting_limit = options_.info.max_waiting;
        // Ours, and what others have sent there.
        const auto ours = static_cast<std::uint32_t>(there_);
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
            for (const auto& [id, active] : live_) active->cancelled = true;
            for (const auto& [id, active] : handed_) active->cancelled = true;
            timer_->cancel();
            pool_->stop();
        });
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return accepted_ == 0; });
    }

  private:
    [[nodiscard]] bool reports_now() {
        if (!options_.lacks_history) return false;
        const std::int64_t now = clock_.now().ns;
        std::int64_t next = next_report_.load(std::memory_order_relaxed);
        if (now < next || !options_.lacks_history()) return false;
        const auto after = now + std::chrono::nanoseconds(options_.report_every).count();
        return next_report_.compare_exchange_strong(next, after, std::memory_order_relaxed);
    }
    [[nodiscard]] Result<void> check(const GenerateRequest& request) const {
        if (options_.media.kinds.empty() &&
            (request.leg == Leg::kEncode || !request.media.empty())) {
            return error(ErrorCode::kUnsupported, "this engine is given no media");
        }
        if (request.leg == Leg::kEncode) {
            if (request.media.size() == 1 && request.media.front().content &&
                desk_.takes(request.media.front().content->kind)) {
                return {};
            }
            return error(ErrorCode::kUnsupported, "this engine takes no media of this kind");
        }
        if (options_.media.encodes) {
            return error(ErrorCode::kUnsupported, "this engine computes no prompts, it encodes");
        }
        if (request.leg == Leg::kPrefill && options_.dialect.connector == KvConnector::kNone) {
            return error(ErrorCode::kUnsupported, "this engine has no connector to others");
        }
        if (options_.info.context_tokens > 0 &&
            request.prompt.size() + request.max_tokens > options_.info.context_tokens) {
            return error(ErrorCode::kInvalidArgument,
                         "{} prompt and {} output tokens do not fit the engine's context of {}",
                         request.prompt.size(), request.max_tokens, options_.info.context_tokens);
        }
        return {};
    }
    /// Whether the engine can fetch the KV that a decode leg was given. Its lease counts: the other
    /// engine may have used the memory for another request since.
    [[nodiscard]] bool usable(const GenerateRequest& request) const {
        if (request.leg != Leg::kDecode || !request.handoff || request.handoff->object.empty()) {
            return false;
        }
        const protocol::Handoff& h = *request.handoff;
        std::string why;
        if (options_.dialect.connector == KvConnector::kNone ||
            h.layout != options_.info.kv_layout) {
            why = "its layout is not this engine's";
        } else if (h.expires.reached(clock_.now())) {
            why = "its lease is over";
        } else if (const auto sound = check_object(options_.dialect.connector, h.object); !sound) {
            why = sound.error().message;
        } else {
            return true;
        }
        log_info("A handoff is of no use here; the prompt is computed again.", {{"why", why}});
        return false;
    }
    [[nodiscard]] Result<void> enter() {
        const std::size_t most = std::size_t{options_.info.max_running} + options_.info.max_waiting;
        const std::scoped_lock lock(mutex_);
        if (stopping_) return error(ErrorCode::kUnavailable, "the engine is stopping");
        if (there_ >= most) {
            auto full = error(ErrorCode::kOverloaded, "{} requests are with the engine", most);
            full.value().retryable = true;
            full.value().retry_after_ms = kRetryAfterMs;
            return full;
        }
        ++accepted_;
        ++there_;
        return {};
    }
    /// A request with the body that the engine gets.
    struct Ready {
        std::shared_ptr<ActiveCall> active;
        std::shared_ptr<net::HttpCallHandler> handler;
        std::function<void()> started;
        net::HttpCallRequest call;
    };
    template <typename Active>
    static Ready ready_of(std::shared_ptr<Active> active, net::HttpCallRequest call) {
        return {active, active, [active] { active->started(); }, std::move(call)};
    }
    [[nodiscard]] std::string name_of(const GenerateRequest& request) const {
        return fmt::format("stator-{:x}-{:x}", tag_, request.id.value);
    }
    [[nodiscard]] net::HttpHeaders headers_of(const GenerateRequest& request) const {
        net::HttpHeaders out;
        if (options_.rank) {
            out.emplace_back("X-data-parallel-rank", std::to_string(*options_.rank));
        }
        if (!request.traceparent.empty()) out.emplace_back("traceparent", request.traceparent);
        return out;
    }
    /// `object`: another engine's KV, or of an early prefill leg the minted one.
    [[nodiscard]] Result<Ready> prepare(const GenerateRequest& request, std::string object,
                                        const BodyMedia* media, std::shared_ptr<StepSink> sink) {
        const KvConnector connector = options_.dialect.connector;
        net::HttpCallRequest call{.method = "POST",
                                  .path = std::string(path_of(options_.dialect.dialect)),
                                  .headers = headers_of(request),
                                  .deadline = request.deadline};
        const std::string name = name_of(request);
        const DialectOptions& dialect = reports_now() ? reporting_ : options_.dialect;
        if (auto ok = append_request_body(call.body, request, dialect, name, object, media); !ok) {
            return tl::unexpected<Error>(std::move(ok.error()));
        }
        call.headers.emplace_back("Content-Type", "application/json");
        call.headers.emplace_back("X-Request-Id", name);
        if (request.leg == Leg::kPrefill) {
            if (is_early(connector)) {
                // Else it would wait for a peer that has given up.
                call.deadline =
                    std::min(call.deadline, Deadline::after(clock_.now(), options_.early_wait));
            }
            auto leg = std::make_shared<PrefillLeg>(
                *this, request, connector, options_.info.kv_layout, std::move(object),
                call.deadline, options_.handoff_lease, std::move(sink));
            return ready_of(std::move(leg), std::move(call));
        }
        Generation::Handed handed;
        handed.kv = !object.empty();
        if (handed.kv && request.handoff->early) handed.first_within = options_.early_wait;
        return ready_of(std::make_shared<Generation>(*this, request, options_.dialect.dialect,
                                                     handed, std::move(sink)),
                        std::move(call));
    }
    /// On the loop.
    void launch(Ready ready) {
        live_.insert_or_assign(ready.active->id, ready.active);
        ready.active->call = pool_->start(std::move(ready.call), std::move(ready.handler));
        ready.started();
    }
    /// Asks the questions on the loop, and goes on there.
    void ask(const GenerateRequest& request, std::vector<MediaDesk::Question> questions,
             MediaErrand::Done done) {
        loop_.post([this, id = request.id, deadline = request.deadline,
                    headers = headers_of(request), questions = std::move(questions),
                    done = std::move(done)]() mutable {
            if (questions.empty()) return done(std::vector<std::string>{});
            auto errand = std::make_shared<MediaErrand>(*this, id, deadline, options_.media.within,
                                                        std::move(done));
            live_.emplace(id, errand);
            errand->start(*pool_, std::move(questions), headers);
        });
    }
    /// Ends a request that the engine has not got, or an encode leg. On the loop.
    void end(RequestId id, const std::shared_ptr<StepSink>& sink, StepEvent event) {
        event.id = id;
        StepBatch& batch = batch_of(sink);
        event.first = static_cast<std::uint32_t>(batch.tokens.size());
        batch.events.push_back(std::move(event));
        ended(id);
    }
    void fail(RequestId id, const std::shared_ptr<StepSink>& sink, Error why) {
        StepEvent event;
        event.finish = protocol::FinishReason::kCancelled;
        if (why.code != ErrorCode::kCancelled) {
            event.finish = protocol::FinishReason::kError;
            event.error = std::move(why);
        }
        end(id, sink, std::move(event));
    }
    [[nodiscard]] Result<void> encode(GenerateRequest request, std::shared_ptr<StepSink> sink) {
        auto plan = desk_.plan_item(request.media.front(), name_of(request));
        if (auto ok = enter(); !ok) return ok;
        auto questions = std::exchange(plan.questions, {});
        const auto kept = std::make_shared<const GenerateRequest>(std::move(request));
        ask(*kept, std::move(questions),
            [this, kept, plan = std::move(plan),
             sink = std::move(sink)](Result<std::vector<std::string>> answers) {
                if (!answers) return fail(kept->id, sink, std::move(answers.error()));
                auto handoff = desk_.hand_off(kept->media.front(), plan, *answers, clock_.now());
                if (!handoff) return fail(kept->id, sink, std::move(handoff.error()));
                lives();
                StepEvent event;
                event.finish = protocol::FinishReason::kHandoff;
                event.handoff = std::move(*handoff);
                end(kept->id, sink, std::move(event));
            });
        return {};
    }
    [[nodiscard]] Result<void> submit_media(GenerateRequest request, std::string object,
                                            std::shared_ptr<StepSink> sink) {
        // With another engine's KV a vLLM needs no more than to know where items stand.
        const bool computes = request.leg != Leg::kDecode || object.empty();
        auto plan = desk_.plan_request(request, computes, name_of(request));
        if (!plan) return tl::unexpected<Error>(std::move(plan.error()));
        if (auto ok = enter(); !ok) return ok;
        if (options_.on_submit) options_.on_submit(request);
        auto questions = std::exchange(plan->questions, {});
        const auto kept = std::make_shared<const GenerateRequest>(std::move(request));
        ask(*kept, std::move(questions),
            [this, kept, plan = std::move(*plan), object = std::move(object),
             sink = std::move(sink)](Result<std::vector<std::string>> answers) mutable {
                if (!answers) return fail(kept->id, sink, std::move(answers.error()));
                auto media = desk_.body_of(*kept, std::move(plan), *answers);
                if (!media) return fail(kept->id, sink, std::move(media.error()));
                auto ready = prepare(*kept, std::move(object), &*media, sink);
                if (!ready) return fail(kept->id, sink, std::move(ready.error()));
                launch(std::move(*ready));
            });
        return {};
    }

    // CallHost
    [[nodiscard]] const Clock& clock() const override { return clock_; }
    [[nodiscard]] runtime::Loop& loop() override { return loop_; }
    [[nodiscard]] StepBatch& batch_of(const std::shared_ptr<StepSink>& sink) override {
        flush_later();
        for (auto& [known, batch] : batches_) {
            if (known == sink) return batch;
        }
        return batches_.emplace_back(sink, StepBatch{}).second;
    }
    [[nodiscard]] bool tells_cached(bool told, bool finished) override {
        tells_cached_ = tells_cached_ || told;
        if (!tells_cached_ && finished && ++untold_ == kUntoldUntilAWord &&
            options_.dialect.dialect != Dialect::kSglang) {
            log_info(
                "The engine has not said of any prompt how much of it was cached; vLLM does so "
                "with --enable-prompt-tokens-details.",
                {{"engine", options_.url.authority}, {"requests", untold_}});
        }
        return tells_cached_;
    }
    void doubt() override {
        doubted_ = true;
        timer_->cancel();
    }
    void failed() override {
        if (++failed_in_a_row_ < kFailuresUntilRest || resting_) return;
        resting_ = true;
        rests_until_ = Deadline::after(clock_.now(), kRest);
        show_health(fmt::format("it failed at {} requests in a row", failed_in_a_row_));
    }
    void count(std::uint64_t prompt, std::uint64_t cached, std::uint64_t generated) override {
        if (prompt + generated > 0) lives();
        const std::scoped_lock lock(mutex_);
        passes_.decode_tokens += generated;
        passes_.cached_tokens += cached;
        passes_.prefill_tokens += prompt - std::min(prompt, cached);
    }
    void ended(RequestId id) override {
        live_.erase(id);
        ++ended_;
        flush_later();
    }
    void handed_off(RequestId id, const protocol::HandoffId& handoff) override {
        const auto found = live_.find(id);
        handed_.emplace(handoff, std::move(found->second));
        live_.erase(found);
    }
    void drained(const protocol::HandoffId& handoff) override {
        handed_.erase(handoff);
        ++ended_;
        flush_later();
    }

    void flush_later() {
        if (std::exchange(flush_scheduled_, true)) return;
        loop_.at_turn_end([this] {
            flush_scheduled_ = false;
            flush();
        });
    }
    void flush() {
        auto batches = std::exchange(batches_, {});
        const std::size_t ended = std::exchange(ended_, 0);
        {
            // Whoever hears of an end may send the next one at once.
            const std::scoped_lock lock(mutex_);
            ++passes_.steps;
            there_ -= ended;
        }
        for (auto& [sink, batch] : batches) sink->on_step(std::move(batch));
        const std::scoped_lock lock(mutex_);
        accepted_ -= ended;
        if (ended > 0) changed_.notify_all();
    }

    /// How the engine is, now and again.
    void look() {
        const auto heard = [this](const WholeAnswer::Body& body, const HttpFailure* failure) {
            if (failure != nullptr && failure->kind == HttpFailure::Kind::kCancelled) return;
            if (failure == nullptr && body.status == 200) take_metrics(body.text);
            bool busy = false;
            {
                const std::scoped_lock lock(mutex_);
                if (stopping_) return;
                busy =
                    accepted_ > 0 || seen_.running + seen_.waiting > 0 || failures_ > 0 || resting_;
            }
            if (resting_ && rests_until_.reached(clock_.now())) {
                resting_ = false;
                failed_in_a_row_ = kFailuresUntilRest - 1;  // the next one tells
                show_health({});
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
        const auto asked = [this, heard](const WholeAnswer::Body& body,
                                         const HttpFailure* failure) {
            take_health(failure == nullptr ? body.status : 0);
            // TensorRT-LLM's /metrics gives each of its numbers once, to whoever asks first.
            const bool trt = options_.dialect.dialect == Dialect::kTrtllm;
            call({.path = trt ? "/prometheus/metrics" : "/metrics"}, kMaxMetricsBytes, heard);
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
        const bool now = failures_ < kFailuresUntilUnhealthy && !dead_ && !resting_;
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
        failed_in_a_row_ = 0;
        const bool was_dead = std::exchange(dead_, false);
        if (std::exchange(resting_, false) || was_dead) show_health({});
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
        const auto heard = [this, now](const WholeAnswer::Body& body, const HttpFailure* failure) {
            canary_out_ = false;
            // What is refused is answered, too; no connection is for /health to find.
            if (failure == nullptr && body.status < 500) return lives();
            if (last_token_ > now) return;
            if (failure != nullptr && failure->kind != HttpFailure::Kind::kTimeout) return;
            dead_ = true;
            show_health(
                failure != nullptr
                    ? fmt::format("no token came within {} ms", options_.canary_within.count())
                    : fmt::format("asked for a token it answered {}", body.status));
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
    MediaDesk desk_;
    const DialectOptions reporting_ = reporting(options_.dialect);
    std::atomic<std::int64_t> next_report_{0};
    const std::uint64_t tag_ = static_cast<std::uint64_t>(clock_.now().ns);
    runtime::Loop loop_;
    std::atomic<bool> healthy_{true};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t accepted_ = 0;  ///< whose end has not been delivered
    std::size_t there_ = 0;     ///< with the engine
    bool stopping_ = false;
    EngineRankMetrics seen_;
    protocol::ForwardPassMetrics passes_;

    // Of the loop.
    std::unique_ptr<net::HttpPool> pool_;
    std::optional<boost::asio::steady_timer> timer_;
    std::unordered_map<RequestId, std::shared_ptr<ActiveCall>> live_;
    /// Prefill legs that have handed off early.
    std::map<protocol::HandoffId, std::shared_ptr<ActiveCall>> handed_;
    std::vector<std::pair<std::shared_ptr<StepSink>, StepBatch>> batches_;
    std::size_t ended_ = 0;
    bool flush_scheduled_ = false;
    int failures_ = 0;
    bool doubted_ = false;
    bool tells_cached_ = false;
    std::uint32_t untold_ = 0;
    TimePoint last_token_;
    std::uint64_t canaries_ = 0;
    bool canary_out_ = false;
    int failed_in_a_row_ = 0;
    bool resting_ = false;
    Deadline rests_until_;
    bool dead_ = false;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_http_engine(HttpEngineOptions options, const Clock& clock) {
    const KvConnector connector = options.dialect.connector;
    options.info.computes_prompts = !options.decodes_only;
    options.info.media = options.media.kinds;
    options.info.media_objects = !options.media.kinds.empty();
    if (connector != KvConnector::kNone) {
        EngineInfo& info = options.info;
        info.kv_method = method_of(connector);
        if (info.kv_layout.empty()) info.kv_layout = kv_layout_of(connector, {});
    }
    auto engine = std::make_unique<HttpEngine>(std::move(options), clock);
    if (auto ok = engine->start(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return engine;
}

}  // namespace stator::engine
