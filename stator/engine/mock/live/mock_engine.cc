#include "stator/engine/mock/live/mock_engine.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/engine/mock/live/kv_announcer.h"
#include "stator/tokens/hash.h"
#include "stator/tokens/token_sequence.h"

namespace stator::engine {
namespace mock {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;

constexpr std::uint32_t kMaxTopLogprobs = 20;
/// Steps of one engine in a turn of the host's thread, then others have theirs.
constexpr int kStepsPerTurn = 16;
constexpr std::uint64_t kOtherTemplate = 0x7e3d;
/// Tokens of output for which memory is taken at once.
constexpr std::uint32_t kReserveTokens = 4096;

/// As every engine here makes a salt part of a prefix's name.
std::uint64_t seed_of(std::uint64_t salt) {
    return salt == 0 ? tokens::hash_seed() : tokens::hash_seed({}, std::to_string(salt));
}

/// As an engine with another hash seed names the same blocks.
void rename(protocol::KvEvent& event) {
    const auto other = [](tokens::SequenceHash name) {
        return tokens::sequence_hash(name, tokens::BlockHash(0x5eed));
    };
    if (auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
        if (stored->parent) stored->parent = other(*stored->parent);
        for (auto& block : stored->blocks) block.sequence = other(block.sequence);
    } else if (auto* removed = std::get_if<protocol::KvRemoved>(&event.what)) {
        for (auto& name : removed->sequences) name = other(name);
    }
}

/// What KV took to come was real time.
MockOptions without_virtual_handoffs(MockOptions options) {
    options.core.handoff_gb_per_s = 0;
    options.core.handoff_latency = Nanos{0};
    return options;
}

class MockEngine final : public Engine, private MockHost::Driven {
  public:
    MockEngine(MockHost& host, MockOptions options, KvEventSink kv_events)
        : host_(host),
          options_(without_virtual_handoffs(std::move(options))),
          handoffs_(options_.handoffs, options_.core.kv_bytes_per_token,
                    options_.core.block_tokens),
          kv_events_(std::move(kv_events)),
          core_(options_.core),
          announcer_(options_.core.host.blocks > 0 || options_.core.disk.blocks > 0),
          lost_events_(static_cast<std::minstd_rand::result_type>(options_.core.seed + 1)),
          lost_handoffs_(static_cast<std::minstd_rand::result_type>(options_.core.seed + 2)),
          seat_(host.seat(*this)) {
        STATOR_CHECK(options_.speedup > 0 && std::isfinite(options_.speedup), "a clock that moves");
        const CoreOptions& c = options_.core;
        info_.kind = "mock";
        info_.device = "cpu";
        info_.context_tokens = c.context_tokens;
        info_.block_tokens = c.prefix_cache ? c.block_tokens : 0;
        info_.max_running = c.max_running;
        info_.max_waiting = c.max_waiting;
        info_.max_top_logprobs = kMaxTopLogprobs;
        info_.kv_layout = handoffs_.kv_layout();
        info_.kv_bytes_per_token = handoffs_.kv_bytes_per_token();
        if (handoffs_.encodes()) info_.media = {"image", "video"};
        if (options_.faults.crash()) seat_->wake(real(*options_.faults.crash()));
    }
    ~MockEngine() override { stop(Deadline::at({})); }

    [[nodiscard]] const EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override;
    void cancel(RequestId id) override;
    [[nodiscard]] std::uint32_t cached_prefix_tokens(const GenerateRequest& request) const override;
    [[nodiscard]] protocol::LoadReport load() const override;
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override;
    [[nodiscard]] bool healthy() const override;
    void stop(Deadline deadline) override;

  private:
    enum class State : std::uint8_t {
        kServing,
        kSilent,  ///< crashed, and nobody is to hear of it
        kEnded,   ///< nothing is here and nothing will come
    };
    /// What is kept of a request until its last event.
    struct Live {
        std::uint32_t slot = 0;  ///< of its receiver
        tokens::TokenSequence tokens;
        std::uint32_t prompt_tokens = 0;  ///< as it was at first, without the resumed ones
        std::int32_t top_logprobs = -1;
        Deadline deadline = {};
        bool expired = false;
        protocol::Leg leg = protocol::Leg::kWhole;
        std::uint64_t salt = 0;  ///< of a prefill leg
        /// Of a decode leg whose KV came: prompt tokens that were here before.
        std::optional<std::uint32_t> own_cached = {};
        protocol::MediaItem media = {};  ///< of an encode leg
    };
    struct SinkSlot {
        std::shared_ptr<StepSink> sink;
        StepBatch batch;
        std::uint32_t users = 0;
    };
    using LiveMap = std::unordered_map<RequestId, Live>;

    [[nodiscard]] Result<void> check(const GenerateRequest& request) const;
    [[nodiscard]] CoreRequest core_request(GenerateRequest& request, const Live& live) const;
    [[nodiscard]] Result<void> settle_legs(GenerateRequest& request, Live& live, CoreRequest& core);
    void refuse_kv(const std::string& why);
    void hand_over(Live& live, StepEvent& event);
    Deadline drive(TimePoint now) override;
    bool advance(TimePoint now);
    void end_step(Nanos at);
    bool begin_step(Nanos now);
    void expire(TimePoint now);
    void crash();
    void end_all(FinishReason reason, const std::optional<Error>& why);
    void take_outputs(Nanos at);
    void put(const CoreOutput& output, Nanos at);
    void put_token(const Live& live, TokenId token, StepBatch& batch) const;
    [[nodiscard]] TokenId wrong(TokenId token) const;
    void take_changes(Nanos at);
    void spoil_events(std::size_t first, Nanos at);
    void forget(LiveMap::iterator it);
    std::uint32_t take_slot(const std::shared_ptr<StepSink>& sink);
    void deliver() override;
    void announce() override;
    [[nodiscard]] Deadline next_due(TimePoint now) const;

    [[nodiscard]] Nanos virtual_time(TimePoint t) const {
        const auto real_ns = static_cast<double>((t - host_.zero()).count());
        return Nanos(std::llround(real_ns * options_.speedup));
    }
    /// Not before it: who wakes then finds it reached.
    [[nodiscard]] TimePoint real(Nanos t) const {
        const double ns = std::ceil(static_cast<double>(t.count()) / options_.speedup);
        return host_.zero() + Nanos(std::llround(ns) + (options_.speedup == 1.0 ? 0 : 1));
    }

    MockHost& host_;
    const MockOptions options_;
    const std::vector<Nanos> hash_seed_repaired_ = options_.faults.hash_seed_repaired();
    const MockHandoffs handoffs_;
    KvEventSink kv_events_;
    EngineInfo info_;

    mutable std::mutex mutex_;         // guards what follows
    std::condition_variable changed_;  ///< stop() waits on it
    Core core_;
    State state_ = State::kServing;
    bool refusing_ = false;
    bool abort_ = false;
    std::optional<Nanos> step_end_;  ///< of the step in work
    std::optional<Nanos> begin_at_;  ///< without one: when there is something to begin
    Nanos done_until_{0};            ///< nothing begins before
    LiveMap live_;
    std::vector<SinkSlot> slots_;
    Deadline next_deadline_;  ///< no request's lies before it
    KvAnnouncer announcer_;
    std::minstd_rand lost_events_;
    std::minstd_rand lost_handoffs_;
    std::uint64_t last_event_ = 0;
    std::uint64_t exported_tokens_ = 0;
    std::uint64_t imported_tokens_ = 0;
    std::uint64_t refused_imports_ = 0;
    std::size_t started_anew_ = 0;  ///< after a changed hash seed, so often

    // Of the host's thread alone, kept for their memory.
    std::vector<protocol::KvEvent> events_;
    std::vector<CoreOutput> outputs_;
    std::vector<KvChange> changes_;
    std::vector<std::pair<std::shared_ptr<StepSink>, StepBatch>> deliveries_;

    std::mutex stop_mutex_;
    std::unique_ptr<MockHost::Seat> seat_;
};

Result<void> MockEngine::check(const GenerateRequest& request) const {
    const bool prefill = request.leg == protocol::Leg::kPrefill;
    if (request.leg == protocol::Leg::kEncode) {
        if (!handoffs_.encodes()) {
            return error(ErrorCode::kUnsupported, "This engine encodes no media.");
        }
        if (request.media.size() != 1 || !request.media[0].content) {
            return param_error("media", "An encode leg has one media item, with its content.");
        }
        return {};
    }
    if (request.prompt.empty() || request.max_tokens == 0) {
        return param_error("max_tokens",
                           "A request needs at least one prompt token and one token to generate, "
                           "not {} and {}.",
                           request.prompt.size(), request.max_tokens);
    }
    if (prefill && (!handoffs_.exports() || request.prompt.size() < 2)) {
        return error(ErrorCode::kUnsupported, "This engine hands {} over to others.",
                     handoffs_.exports() ? "no prompt of one token" : "no KV");
    }
    if (request.constraint) {
        auto refused =
            error(ErrorCode::kUnsupported, "the mock engine can't hold its output to a constraint");
        refused.value().param = "constraint";
        return refused;
    }
    if (request.resumed_tokens >= request.prompt.size()) {
        return param_error("resumed_tokens",
                           "{} resumed tokens leave nothing of a prompt of {} tokens.",
                           request.resumed_tokens, request.prompt.size());
    }
    return {};
}

CoreRequest MockEngine::core_request(GenerateRequest& request, const Live& live) const {
    CoreRequest core;
    core.id = request.id;
    const auto hashes = live.tokens.sequence_hashes();
    core.blocks.assign(hashes.begin(), hashes.end());
    const auto tail = live.tokens.tokens().subspan(hashes.size() * options_.core.block_tokens);
    core.tail.assign(tail.begin(), tail.end());
    core.hash_seed = live.tokens.seed();
    core.token_seed = request.sampling.seed.value_or(0);
    core.max_tokens = request.max_tokens;
    core.min_tokens = request.min_tokens;
    core.ignore_eos = request.ignore_eos;
    core.stop_tokens = std::move(request.stop_token_ids);
    core.priority = request.priority;
    return core;
}

/// What the core is to do for the request's leg. With the lock.
Result<void> MockEngine::settle_legs(GenerateRequest& request, Live& live, CoreRequest& core) {
    live.leg = request.leg;
    switch (request.leg) {
        case protocol::Leg::kEncode: {
            live.media = std::move(request.media[0]);
            std::uint64_t name = 0;
            std::memcpy(&name, live.media.digest.data(), sizeof name);
            const auto& content = *live.media.content;
            core.leg = Leg::kEncode;
            core.images = {{name, 0, handoffs_.rows(content) * std::max(1U, content.frames)}};
            return {};
        }
        case protocol::Leg::kPrefill:
            core.leg = Leg::kPrefill;
            core.max_tokens = 1;
            live.salt = request.cache_salt;
            break;
        case protocol::Leg::kDecode: {
            if (!request.kv) break;
            const Nanos at = virtual_time(host_.clock().now());
            if (const double p = options_.faults.handoff_loss(at);
                p > 0 && std::uniform_real_distribution<>()(lost_handoffs_) < p) {
                refuse_kv("the schedule of faults loses it");
                break;
            }
            // At least the last token is computed here.
            const std::size_t most = (request.prompt.size() - 1) / options_.core.block_tokens;
            const auto found = core_.cached_prefix(std::span(core.blocks).first(most));
            const std::uint32_t cached = (found.device + found.slow) * options_.core.block_tokens;
            const auto why = handoffs_.why_not_kv(request, live.tokens.seed(), cached);
            if (why.empty()) {
                core.leg = Leg::kDecode;
                live.own_cached = cached;
                return {};
            }
            refuse_kv(why);
            break;
        }
        case protocol::Leg::kWhole:
            break;
    }
    for (const protocol::MediaItem& item : request.media) {
        if (auto ok = handoffs_.check_embeddings(item); !ok) return ok;
    }
    return {};
}

void MockEngine::refuse_kv(const std::string& why) {
    if (refused_imports_++ > 0) return;
    log_warn("KV that came by handoff is not used; the prompt is computed here.",
             {{"because", why}});
}

Result<void> MockEngine::submit(GenerateRequest request, std::shared_ptr<StepSink> sink) {
    if (auto ok = check(request); !ok) return ok;
    const TimePoint now = host_.clock().now();
    // Another template: other tokens before the prompt, so that no block has the usual name.
    const bool astray = options_.faults.wrong_template(virtual_time(now));
    Live live{.tokens = tokens::TokenSequence(
                  options_.core.block_tokens,
                  seed_of(request.cache_salt) ^ (astray ? kOtherTemplate : 0))};
    live.tokens.reserve(request.prompt.size() + std::min(request.max_tokens, kReserveTokens));
    // A prefill leg leaves the last token to who goes on.
    const bool prefill = request.leg == protocol::Leg::kPrefill;
    live.tokens.append(std::span(request.prompt).first(request.prompt.size() - (prefill ? 1 : 0)));
    live.prompt_tokens = static_cast<std::uint32_t>(request.prompt.size()) - request.resumed_tokens;
    live.top_logprobs = request.top_logprobs;
    live.deadline = request.deadline;
    CoreRequest core = core_request(request, live);

    bool wake = false;
    {
        const std::scoped_lock lock(mutex_);
        if (refusing_ || state_ != State::kServing) {
            return error(ErrorCode::kUnavailable, "The engine is {}.",
                         refusing_ ? "shutting down" : "not healthy; see its log");
        }
        if (auto ok = settle_legs(request, live, core); !ok) return ok;
        if (auto ok = core_.submit(std::move(core)); !ok) return ok;
        live.slot = take_slot(sink);
        next_deadline_ = std::min(next_deadline_, live.deadline);
        live_.emplace(request.id, std::move(live));
        if (!step_end_) {
            const Nanos at = std::max(virtual_time(now), done_until_);
            wake = !begin_at_ || at < *begin_at_;
            if (wake) begin_at_ = at;
        }
    }
    if (wake) seat_->wake(now);
    return {};
}

void MockEngine::cancel(RequestId id) {
    const TimePoint now = host_.clock().now();
    {
        const std::scoped_lock lock(mutex_);
        if (!live_.contains(id)) return;
        core_.cancel(id);
        if (step_end_) return;
        begin_at_ = std::max(virtual_time(now), done_until_);
    }
    seat_->wake(now);
}

std::uint32_t MockEngine::cached_prefix_tokens(const GenerateRequest& request) const {
    if (request.prompt.empty()) return 0;
    tokens::TokenSequence sequence(options_.core.block_tokens, seed_of(request.cache_salt));
    sequence.append(std::span(request.prompt).first(request.prompt.size() - 1));
    const std::scoped_lock lock(mutex_);
    const auto found = core_.cached_prefix(sequence.sequence_hashes());
    return (found.device + found.slow) * options_.core.block_tokens;
}

protocol::LoadReport MockEngine::load() const {
    const std::scoped_lock lock(mutex_);
    if (state_ == State::kEnded) return {};
    return core_.load();
}

protocol::ForwardPassMetrics MockEngine::forward_pass_metrics() const {
    const std::scoped_lock lock(mutex_);
    protocol::ForwardPassMetrics metrics = core_.metrics();
    // To the core all that was here before the first step is cached.
    metrics.cached_tokens -= std::min(metrics.cached_tokens, imported_tokens_);
    metrics.exported_tokens = exported_tokens_;
    metrics.imported_tokens = imported_tokens_;
    metrics.refused_imports = refused_imports_;
    return metrics;
}

bool MockEngine::healthy() const {
    const std::scoped_lock lock(mutex_);
    return state_ == State::kServing;
}

void MockEngine::stop(Deadline deadline) {
    const std::scoped_lock one_at_a_time(stop_mutex_);
    {
        std::unique_lock lock(mutex_);
        refusing_ = true;
        const auto over = [this] { return live_.empty() || state_ != State::kServing; };
        if (deadline.is_never()) {
            changed_.wait(lock, over);
        } else {
            changed_.wait_for(lock, deadline.left(host_.clock().now()), over);
        }
        abort_ = true;
    }
    seat_->wake(host_.clock().now());
    {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return state_ == State::kEnded; });
    }
    // Not before the last events are delivered.
    seat_->leave();
}

Deadline MockEngine::drive(TimePoint now) {
    const std::scoped_lock lock(mutex_);
    for (int i = 0; i < kStepsPerTurn; ++i) {
        const bool more = advance(now);
        for (SinkSlot& slot : slots_) {
            if (!slot.batch.events.empty()) {
                deliveries_.emplace_back(slot.sink, std::exchange(slot.batch, {}));
            }
            if (slot.users == 0) slot.sink = nullptr;
        }
        if (!more) break;
    }
    return next_due(now);
}

/// At most one step's end and the next one's beginning. False: nothing more is due now.
bool MockEngine::advance(TimePoint now) {
    if (state_ == State::kEnded) return false;
    if (abort_) {
        end_all(FinishReason::kCancelled, std::nullopt);
        return false;
    }
    if (state_ == State::kSilent) return false;
    const Nanos at = virtual_time(now);
    if (options_.faults.crash() && at >= *options_.faults.crash()) {
        crash();
        return false;
    }
    if (options_.faults.after_hang(at) == at) expire(now);
    if (step_end_) {
        if (*step_end_ > at) return false;
        host_.step_was_late(std::max(Nanos{0}, now - real(*step_end_)));
        end_step(*step_end_);
    }
    return begin_at_ && begin_step(at);
}

void MockEngine::end_step(Nanos at) {
    step_end_.reset();
    done_until_ = at;
    core_.end_step(outputs_);
    take_outputs(at);
    begin_at_ = at;
}

/// True where a step began that is over already.
bool MockEngine::begin_step(Nanos now) {
    Nanos at = *begin_at_;
    if (at > now) return false;
    const Nanos lag = now - at;
    const auto patience =
        Nanos(std::llround(static_cast<double>(options_.catch_up.count()) * options_.speedup));
    if (lag > patience) {
        host_.time_lost(Nanos(std::llround(static_cast<double>(lag.count()) / options_.speedup)));
        at = now;
    }
    at = options_.faults.after_hang(at);
    begin_at_ = at;
    if (at > now) return false;
    if (started_anew_ < hash_seed_repaired_.size() && hash_seed_repaired_[started_anew_] <= at) {
        ++started_anew_;
        core_.clear_cache();
    }
    const auto plan = core_.begin_step(at);
    done_until_ = at;
    if (plan) {
        begin_at_.reset();
        step_end_ = options_.faults.step_end(at, plan->duration);
        take_changes(at);
        return *step_end_ <= now;
    }
    core_.drain_ended(outputs_);
    take_outputs(at);
    begin_at_ = core_.next_ready();
    return false;
}

void MockEngine::expire(TimePoint now) {
    if (!next_deadline_.reached(now)) return;
    next_deadline_ = Deadline::never();
    for (auto& [id, live] : live_) {
        if (live.expired) continue;
        if (live.deadline.reached(now)) {
            live.expired = true;
            core_.cancel(id);
            if (!step_end_) begin_at_ = std::max(virtual_time(now), done_until_);
        } else {
            next_deadline_ = std::min(next_deadline_, live.deadline);
        }
    }
}

void MockEngine::crash() {
    log_warn("The mock engine crashes, as its schedule of faults says.");
    if (options_.crash) {
        state_ = State::kSilent;
        options_.crash();
    } else {
        end_all(FinishReason::kError,
                error(ErrorCode::kInternal, "The engine crashed, as its schedule says.").value());
    }
    changed_.notify_all();
}

void MockEngine::end_all(FinishReason reason, const std::optional<Error>& why) {
    for (auto it = live_.begin(); it != live_.end();) {
        Live& live = it->second;
        StepBatch& batch = slots_[live.slot].batch;
        StepEvent& event = batch.events.emplace_back();
        event.id = it->first;
        event.first = static_cast<std::uint32_t>(batch.tokens.size());
        event.finish = reason;
        event.prompt_tokens = live.prompt_tokens;
        event.error = why;
        forget(it++);
    }
    state_ = State::kEnded;
    changed_.notify_all();
}

/// Outputs first, so that the tokens of each block that was stored are known; the ended ones are
/// forgotten last.
void MockEngine::take_outputs(Nanos at) {
    for (const CoreOutput& output : outputs_) put(output, at);
    take_changes(at);
    for (const CoreOutput& output : outputs_) {
        if (output.finish) forget(live_.find(output.id));
    }
    outputs_.clear();
    if (live_.empty()) changed_.notify_all();
}

void MockEngine::put(const CoreOutput& output, Nanos at) {
    const auto found = live_.find(output.id);
    STATOR_CHECK(found != live_.end(), "the core speaks of requests that are here");
    Live& live = found->second;
    SinkSlot& slot = slots_[live.slot];
    StepBatch& batch = slot.batch;
    if (batch.events.capacity() == 0) {
        batch.events.reserve(slot.users);
        batch.tokens.reserve(slot.users);
    }
    StepEvent& event = batch.events.emplace_back();
    event.id = output.id;
    event.first = static_cast<std::uint32_t>(batch.tokens.size());
    if (output.has_token) {
        live.tokens.push(output.token);
        event.count = 1;
        put_token(live, options_.faults.wrong_tokens(at) ? wrong(output.token) : output.token,
                  batch);
    }
    if (output.first || output.finish) {
        event.prompt_tokens = live.prompt_tokens;
        event.cached_tokens =
            std::min(live.own_cached.value_or(output.cached_tokens), live.prompt_tokens);
        if (output.first && live.own_cached) {
            imported_tokens_ +=
                output.cached_tokens - std::min(output.cached_tokens, *live.own_cached);
        }
    }
    event.finish = output.finish;
    if (output.finish && *output.finish != FinishReason::kCancelled) hand_over(live, event);
    if (output.finish == FinishReason::kCancelled && live.expired) {
        event.error = error(ErrorCode::kDeadlineExceeded, "The request's time ran out.").value();
    }
}

/// The end of a prefill or encode leg is what it leaves.
void MockEngine::hand_over(Live& live, StepEvent& event) {
    const bool prefill = live.leg == protocol::Leg::kPrefill;
    if (!prefill && live.leg != protocol::Leg::kEncode) return;
    auto left = prefill ? handoffs_.leave_kv(live.tokens.tokens(), live.salt, live.tokens.seed())
                        : handoffs_.leave_embeddings(live.media);
    if (prefill) core_.release(event.id);
    if (!left) {
        event.finish = FinishReason::kError;
        event.error = std::move(left.error());
        return;
    }
    if (prefill) exported_tokens_ += (*left)->tokens;
    event.finish = FinishReason::kHandoff;
    event.handoff = std::move(*left);
}

void MockEngine::put_token(const Live& live, TokenId token, StepBatch& batch) const {
    auto& out = batch.tokens.emplace_back();
    out.token = token;
    out.top_first = static_cast<std::uint32_t>(batch.top.size());
    const auto count =
        static_cast<std::uint32_t>(std::clamp<std::int32_t>(live.top_logprobs, 0, kMaxTopLogprobs));
    for (std::uint32_t j = 0; j < count; ++j) {
        batch.top.push_back(
            {(token + j) % std::max(options_.core.vocab_size, 1U), -static_cast<float>(j)});
    }
    out.top_count = count;
}

/// Another token that could have come as well.
TokenId MockEngine::wrong(TokenId token) const {
    const auto& alphabet = options_.core.alphabet;
    if (alphabet.empty()) return (token + 1) % std::max(options_.core.vocab_size, 1U);
    const auto at = std::ranges::find(alphabet, token);
    if (at == alphabet.end() || at + 1 == alphabet.end()) return alphabet.front();
    return *(at + 1);
}

void MockEngine::take_changes(Nanos at) {
    core_.take_changes(changes_);
    if (changes_.empty()) return;
    if (kv_events_) {
        const std::size_t before = events_.size();
        announcer_.announce(
            changes_,
            [this](RequestId id) {
                const auto found = live_.find(id);
                return found == live_.end() ? nullptr : &found->second.tokens;
            },
            events_);
        spoil_events(before, at);
        if (const double p = options_.faults.drop_probability(at); p > 0) {
            std::erase_if(events_, [&](const protocol::KvEvent&) {
                return std::uniform_real_distribution<>()(lost_events_) < p;
            });
        }
    }
    changes_.clear();
}

/// What the schedule does to the new events without anybody being told.
void MockEngine::spoil_events(std::size_t first, Nanos at) {
    if (const double p = options_.faults.lose_probability(at); p > 0) {
        const auto lost = [&](const protocol::KvEvent&) {
            return std::uniform_real_distribution<>()(lost_events_) < p;
        };
        const auto begin = events_.begin() + static_cast<std::ptrdiff_t>(first);
        const auto kept = std::remove_if(begin, events_.end(), lost);
        events_.erase(kept, events_.end());
    }
    const bool other_names = options_.faults.changed_hash_seed(at);
    for (std::size_t i = first; i < events_.size(); ++i) {
        // Numbers go on as if the lost ones had never been.
        events_[i].seq = protocol::EventSeq(++last_event_);
        if (other_names) rename(events_[i]);
    }
}

void MockEngine::forget(LiveMap::iterator it) {
    --slots_[it->second.slot].users;
    live_.erase(it);
}

std::uint32_t MockEngine::take_slot(const std::shared_ptr<StepSink>& sink) {
    auto slot = std::ranges::find(slots_, sink, &SinkSlot::sink);
    if (slot == slots_.end()) slot = std::ranges::find(slots_, nullptr, &SinkSlot::sink);
    if (slot == slots_.end()) slot = slots_.emplace(slots_.end());
    slot->sink = sink;
    ++slot->users;
    return static_cast<std::uint32_t>(slot - slots_.begin());
}

/// Without the lock: a receiver may call cancel().
void MockEngine::deliver() {
    for (auto& [sink, batch] : deliveries_) sink->on_step(std::move(batch));
    deliveries_.clear();
}

void MockEngine::announce() {
    if (events_.empty()) return;
    kv_events_(events_);
    events_.clear();
}

Deadline MockEngine::next_due(TimePoint now) const {
    if (state_ != State::kServing) return Deadline::never();
    Deadline due;
    if (step_end_) {
        due = Deadline::at(real(*step_end_));
    } else {
        if (begin_at_) due = Deadline::at(real(*begin_at_));
        if (!next_deadline_.is_never()) {
            const Nanos at = virtual_time(now + next_deadline_.left(now));
            due = std::min(due, Deadline::at(real(options_.faults.after_hang(at))));
        }
    }
    if (options_.faults.crash()) {
        due = std::min(due, Deadline::at(real(*options_.faults.crash())));
    }
    return due;
}

}  // namespace
}  // namespace mock

std::unique_ptr<Engine> make_mock_engine(MockHost& host, MockOptions options,
                                         KvEventSink kv_events) {
    return std::make_unique<mock::MockEngine>(host, std::move(options), std::move(kv_events));
}

}  // namespace stator::engine
