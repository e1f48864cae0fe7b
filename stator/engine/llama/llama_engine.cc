#include "stator/engine/llama/llama_engine.h"

#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/engine/llama/llama_engine_impl.h"
#include "stator/engine/llama/media_rows.h"

namespace stator::engine {
namespace llama {
namespace {

constexpr int kMaxFailuresInARow = 3;
constexpr std::chrono::milliseconds kStopTick{10};

std::uint64_t random_seed() {
    std::uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed)) {
        seed = static_cast<std::uint64_t>(Clock::real().now().ns);
    }
    return seed;
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): neighbouring inputs give unrelated outputs.
std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

}  // namespace

LlamaEngine::LlamaEngine(std::unique_ptr<LlamaContext> context,
                         std::unique_ptr<MediaEncoder> encoder, KvEventSink kv_events,
                         LlamaOptions options)
    : context_(std::move(context)),
      kv_events_(std::move(kv_events)),
      handoffs_(options.handoffs, context_->kv_layout(), options.block_tokens),
      scheduler_(context_->scheduler_options()),
      seed_(options.seed != 0 ? options.seed : random_seed()),
      allowed_((context_->vocab_size() + 31) / 32) {
    const SchedulerOptions& s = context_->scheduler_options();
    info_ = {.kind = "llama",
             .device = context_->device(),
             .context_tokens = s.max_sequence_tokens,
             .block_tokens = s.prefix_cache ? s.block_tokens : 0,
             .max_running = s.max_running,
             .max_waiting = s.max_waiting,
             .max_top_logprobs = kMaxTopLogprobs,
             .structured_output = options.tokenizer != nullptr,
             .kv_layout = context_->kv_layout()};
    if (const auto* format = context_->handoff_format(); format != nullptr) {
        info_.kv_bytes_per_token = format->bytes_per_cell();
    }
    load_ = scheduler_.load();
    if (options.tokenizer) {
        guides_ = std::make_unique<GuideDesk>(
            std::move(options.tokenizer),
            [this](RequestId id, Result<text::Guide> guide) { take_guide(id, std::move(guide)); });
    }
    if (encoder) {
        info_.media = {"image", "video"};
        encoder_ = std::make_unique<EncoderDesk>(
            std::move(encoder), std::move(options.handoffs), options.embeddings_cache_bytes,
            options.registry,
            [this](RequestId id, EncoderDesk::Left left, bool /*cached*/, double seconds) {
                take_encoded(id, std::move(left), seconds);
            });
    }
    thread_ = std::thread([this] { run(); });
}

LlamaEngine::~LlamaEngine() {
    stop(Deadline::at(clock_.now()));
    guides_.reset();
    encoder_.reset();
}

Result<void> LlamaEngine::submit(protocol::GenerateRequest request,
                                 std::shared_ptr<StepSink> sink) {
    const bool encode = request.leg == protocol::Leg::kEncode;
    if (auto ok = encode ? check_encode(request) : check(request); !ok) return ok;
    if (!encode) {
        check_kv(request);
        // Where all KV comes by handoff it goes without pictures, if all goes well.
        if (request.kv) {
            drop_unusable_media(request, context_->embedding_width());
        } else if (auto ok = check_media(request, context_->embedding_width()); !ok) {
            return ok;
        }
    }
    {
        const std::scoped_lock lock(mutex_);
        if (stopping_ || !healthy()) {
            return error(ErrorCode::kUnavailable, "The engine is {}.",
                         stopping_ ? "shutting down" : "not healthy; see its log");
        }
        if (accepted_ >= std::size_t{info_.max_running} + info_.max_waiting) {
            auto refused =
                error(ErrorCode::kOverloaded,
                      "The engine works on {} requests and has {} waiting, which is all it takes.",
                      info_.max_running, info_.max_waiting);
            const double queue = 1.0 + static_cast<double>(info_.max_waiting) / info_.max_running;
            const double wait_ms =
                std::clamp(queue * published_request_seconds_ * 1000.0 / 2.0, 1'000.0, 60'000.0);
            refused.value().retryable = true;
            refused.value().retry_after_ms = static_cast<std::uint32_t>(wait_ms);
            return refused;
        }
        ++accepted_;
        inbox_.push_back({std::move(request), std::move(sink)});
    }
    wake_.notify_one();
    return {};
}

void LlamaEngine::cancel(RequestId id) {
    {
        const std::scoped_lock lock(mutex_);
        if (accepted_ == 0) return;
        cancellations_.push_back(id);
    }
    wake_.notify_one();
}

protocol::LoadReport LlamaEngine::load() const {
    const std::scoped_lock lock(mutex_);
    protocol::LoadReport report = load_;
    report.waiting += static_cast<std::uint32_t>(inbox_.size());
    if (encoder_) report.waiting += static_cast<std::uint32_t>(encoder_->waiting());
    return report;
}

protocol::ForwardPassMetrics LlamaEngine::forward_pass_metrics() const {
    const std::scoped_lock lock(mutex_);
    return published_;
}

void LlamaEngine::stop(Deadline deadline) {
    {
        const std::scoped_lock lock(mutex_);
        stop_deadline_ = stopping_ ? std::min(stop_deadline_, deadline) : deadline;
        stopping_ = true;
    }
    wake_.notify_one();
    const std::scoped_lock lock(join_mutex_);
    if (thread_.joinable()) thread_.join();
}

void LlamaEngine::run() {
    const double cpu_at_start = thread_cpu_seconds();
    while (take_mail()) {
        end_expired();
        if (!scheduler_.idle()) step();
        publish();  // who gets the step may look at once
        deliver();
        if (scheduler_.idle()) settle();
        if (const auto events = scheduler_.take_events(); !events.empty()) {
            known_.apply(events);
            if (kv_events_) kv_events_(events);
        }
        work_.engine_cpu_seconds = thread_cpu_seconds() - cpu_at_start - work_.model_cpu_seconds;
        publish();
    }
}

/// Waits for something to do; false when the engine has stopped.
bool LlamaEngine::take_mail() {
    std::vector<Incoming> inbox;
    std::vector<RequestId> cancellations;
    std::vector<Compiled> compiled;
    std::vector<EncodeDone> encoded;
    bool give_up = false;
    {
        std::unique_lock lock(mutex_);
        const auto something = [&] {
            return stopping_ || !inbox_.empty() || !cancellations_.empty() || !compiled_.empty() ||
                   !encoded_.empty();
        };
        if (scheduler_.idle()) {
            wake_.wait(lock, something);
            // Nothing to do until a desk is done, or it is time to give up.
            const auto done = [&] { return !compiled_.empty() || !encoded_.empty(); };
            if (stopping_ && elsewhere_ > 0 && !done()) wake_.wait_for(lock, kStopTick, done);
        }
        inbox.swap(inbox_);
        cancellations.swap(cancellations_);
        compiled.swap(compiled_);
        encoded.swap(encoded_);
        if (stopping_) {
            if (scheduler_.idle() && inbox.empty() && elsewhere_ == 0) return false;
            give_up = stop_deadline_.reached(clock_.now());
        }
    }
    for (Incoming& in : inbox) take_in(std::move(in));
    for (Compiled& one : compiled) start_guided(std::move(one));
    for (EncodeDone& one : encoded) end_encoded(std::move(one));
    for (const RequestId id : cancellations) {
        const auto live = live_.find(id);
        if (live != live_.end() && live->second.encodes) {
            encoder_->cancel(id);
            continue;
        }
        const bool waits = live != live_.end() && live->second.waits_for_guide != nullptr;
        if (waits || scheduler_.cancel(id)) {
            finish(id, protocol::FinishReason::kCancelled, std::nullopt);
        }
    }
    if (give_up) {
        end_all(
            error(ErrorCode::kUnavailable, "The engine was stopped before the answer was complete.")
                .value());
    }
    return true;
}

void LlamaEngine::take_in(Incoming in) {
    const RequestId id = in.request.id;
    Live& live = live_[id];
    live.sink = std::move(in.sink);
    live.accepted = clock_.now();
    if (in.request.leg == protocol::Leg::kEncode) {
        live.encodes = true;
        ++elsewhere_;
        encoder_->ask(id, std::move(in.request.media[0]), in.request.deadline);
        return;
    }
    if (in.request.constraint && in.request.leg != protocol::Leg::kPrefill) {
        const auto resumed = std::span(in.request.prompt).last(in.request.resumed_tokens);
        guides_->ask(id, in.request.constraint, {resumed.begin(), resumed.end()});
        live.waits_for_guide = std::make_unique<protocol::GenerateRequest>(std::move(in.request));
        ++elsewhere_;
        return;
    }
    if (auto ok = scheduler_.add(std::move(in.request)); !ok) {
        finish(id, protocol::FinishReason::kError, std::move(ok.error()));
    }
}

/// On the desk's thread.
void LlamaEngine::take_guide(RequestId id, Result<text::Guide> guide) {
    {
        const std::scoped_lock lock(mutex_);
        compiled_.push_back({id, std::move(guide)});
    }
    wake_.notify_one();
}

void LlamaEngine::start_guided(Compiled compiled) {
    const auto it = live_.find(compiled.id);
    if (it == live_.end() || !it->second.waits_for_guide) return;  // it was cancelled meanwhile
    protocol::GenerateRequest request = std::move(*it->second.waits_for_guide);
    it->second.waits_for_guide.reset();
    --elsewhere_;
    if (!compiled.guide) {
        return finish(compiled.id, protocol::FinishReason::kError,
                      std::move(compiled.guide.error()));
    }
    if (compiled.guide->finished()) {
        return finish(compiled.id, protocol::FinishReason::kStop, std::nullopt);
    }
    it->second.guide = std::move(*compiled.guide);
    if (auto ok = scheduler_.add(std::move(request)); !ok) {
        finish(compiled.id, protocol::FinishReason::kError, std::move(ok.error()));
    }
}

void LlamaEngine::end_expired() {
    std::vector<RequestId> ids;
    scheduler_.expired(clock_.now(), ids);
    for (const RequestId id : ids) {
        scheduler_.cancel(id);
        finish(id, protocol::FinishReason::kCancelled,
               error(ErrorCode::kDeadlineExceeded, "The request's time ran out.").value());
    }
}

void LlamaEngine::step() {
    StepPlan plan = scheduler_.plan();
    if (!context_->apply(plan.ops)) {
        give_up_step("llama.cpp could not carry out a change of the KV cache");
        return;
    }
    const bool imports = !plan.imports.empty();
    const bool computes = !plan.batch.empty();
    if (imports) take_over(plan);
    withdraw_what_lacks_media(plan);
    if (!plan.batch.empty()) {
        if (!forward(plan)) return;
        ++work_.steps;
    }
    work_.prefill_tokens += plan.prefill_tokens;
    work_.decode_tokens += plan.decode_tokens;
    work_.cached_tokens += plan.cached_tokens;
    draw(plan);
    const bool handed_over = hand_over();
    if (!computes && !imports && !handed_over) {
        STATOR_BUG("a scheduler with work planned nothing");
        end_all(
            error(ErrorCode::kInternal, "The engine's scheduler is stuck; its requests were ended.")
                .value());
    }
}

/// Parks what the last requests left behind now, so that the next request need not wait for it.
void LlamaEngine::settle() {
    const StepPlan plan = scheduler_.plan();
    if (!context_->apply(plan.ops)) give_up_step("llama.cpp could not save a prefix");
}

bool LlamaEngine::forward(const StepPlan& plan) {
    const TimePoint wall = clock_.now();
    const double cpu = thread_cpu_seconds();
    const LlamaContext::Pass pass = context_->forward(plan.batch);
    work_.model_cpu_seconds += thread_cpu_seconds() - cpu;
    work_.model_seconds += to_seconds(clock_.now() - wall);

    std::vector<RequestId> lost;
    switch (pass) {
        case LlamaContext::Pass::kDone:
            failures_in_a_row_ = 0;
            return true;
        case LlamaContext::Pass::kNoRoom:
            log_warn("llama.cpp found no room for a step that should fit; a request gives way.",
                     {{"batch", plan.batch.size()}, {"cells_used", scheduler_.used_cells()}});
            scheduler_.no_room(lost);
            fail_lost(
                lost,
                error(ErrorCode::kExhausted, "The KV cache has no room for this request.").value());
            return false;
        case LlamaContext::Pass::kFailed:
            give_up_step("a forward pass failed");
            return false;
    }
    return false;
}

/// The state of the KV cache is lost: ends the requests of the step, starts the others again.
void LlamaEngine::give_up_step(std::string_view why) {
    std::vector<RequestId> lost;
    scheduler_.abandon(lost);
    context_->clear();
    log_error("The engine lost a step: its requests are ended and the KV cache is cleared.",
              {{"why", why}, {"requests", lost.size()}});
    fail_lost(
        lost,
        error(ErrorCode::kInternal, "The model failed while computing this request.").value());
    if (++failures_in_a_row_ >= kMaxFailuresInARow) {
        healthy_.store(false, std::memory_order_relaxed);
        log_error("The engine gives up after repeated failures.",
                  {{"failures", failures_in_a_row_}});
        end_all(error(ErrorCode::kInternal, "The engine has failed.").value());
    }
}

void LlamaEngine::draw(const StepPlan& plan) {
    sampled_.clear();
    progress_.clear();
    for (const OutputRow& row : plan.outputs) {
        protocol::StepBatch& batch = batch_for(live_.at(row.id).sink);
        Drawn drawn = draw_one(row, batch);
        const bool ends = drawn.ends || drawn.why;
        sampled_.push_back({row.id, drawn.token, context_->is_end(drawn.token), ends});
        if (drawn.why) broken_.emplace(row.id, std::move(*drawn.why));
    }
    scheduler_.complete(sampled_, progress_);
    for (const Progress& p : progress_) {
        const auto it = live_.find(p.id);
        for (Delivery& d : deliveries_) {
            if (d.sink != it->second.sink) continue;
            auto event = std::ranges::find(d.batch.events, p.id, &protocol::StepEvent::id);
            event->finish = p.finish;
            event->prompt_tokens = p.prompt_tokens;
            event->cached_tokens = p.cached_tokens;
            if (const auto why = broken_.find(p.id); why != broken_.end()) {
                event->finish = protocol::FinishReason::kError;
                event->error = std::move(why->second);
            }
        }
        if (p.finish) forget(p.id);
    }
    broken_.clear();
}

/// Fills allowed_ for the next token. False: the text can only end here.
Result<bool> LlamaEngine::prepare_mask(text::Guide& guide, bool no_end) {
    if (auto ok = guide.mask(allowed_); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    if (no_end) {
        for (const TokenId token : context_->end_tokens()) {
            if (token / 32 < allowed_.size()) allowed_[token / 32] &= ~(1U << (token % 32));
        }
    }
    return std::ranges::any_of(allowed_, [](std::uint32_t word) { return word != 0; });
}

LlamaEngine::Drawn LlamaEngine::draw_one(const OutputRow& row, protocol::StepBatch& batch) {
    Live& live = live_.at(row.id);
    const Sequence& sequence = *scheduler_.find(row.id);
    const auto& request = sequence.request;
    if (!live.sampler) {
        live.sampler.emplace(request.sampling, sequence.tokens.tokens(),
                             mix(seed_ ^ request.id.value), request.resumed_tokens);
    }
    protocol::StepEvent event;
    event.id = row.id;
    event.first = static_cast<std::uint32_t>(batch.tokens.size());
    Drawn drawn;
    const bool no_end = request.ignore_eos || sequence.generated < request.min_tokens;
    if (live.guide) {
        const TimePoint start = clock_.now();
        auto some = prepare_mask(*live.guide, no_end);
        work_.guide_seconds += to_seconds(clock_.now() - start);
        ++work_.guided_tokens;
        if (!some || !*some) {
            if (some) {
                drawn.ends = true;
            } else {
                drawn.why = std::move(some.error());
                guides_->forget(request.constraint);
            }
            batch.events.push_back(std::move(event));
            return drawn;
        }
    }
    const std::span<float> logits = context_->logits(row.index);
    const bool wants_logprobs = request.top_logprobs >= 0;
    if (wants_logprobs) raw_logits_.assign(logits.begin(), logits.end());

    const std::span<const TokenId> masked =
        no_end ? std::span<const TokenId>(context_->end_tokens()) : std::span<const TokenId>{};
    protocol::TokenOutput out;
    out.token = live.sampler->draw(
        logits, masked,
        live.guide ? std::span<const std::uint32_t>(allowed_) : std::span<const std::uint32_t>{});
    drawn.token = out.token;
    if (live.guide && !context_->is_end(out.token)) {
        if (auto ok = live.guide->accept(out.token); !ok) {
            drawn.why = std::move(ok.error());
            guides_->forget(request.constraint);
        } else {
            drawn.ends = live.guide->finished();
        }
    }
    if (wants_logprobs) {
        const auto top = static_cast<std::uint32_t>(request.top_logprobs);
        const Logprobs logprobs =
            logprobs_of(raw_logits_, out.token, std::min(top, kMaxTopLogprobs));
        out.logprob = logprobs.chosen;
        out.top_first = static_cast<std::uint32_t>(batch.top.size());
        out.top_count = static_cast<std::uint32_t>(logprobs.top.size());
        batch.top.insert(batch.top.end(), logprobs.top.begin(), logprobs.top.end());
    }
    event.count = 1;
    batch.tokens.push_back(out);
    batch.events.push_back(std::move(event));
    return drawn;
}

void LlamaEngine::finish(RequestId id, protocol::FinishReason reason, std::optional<Error> why) {
    const auto it = live_.find(id);
    if (it == live_.end()) return;
    protocol::StepEvent event;
    event.id = id;
    event.finish = reason;
    event.error = std::move(why);
    batch_for(it->second.sink).events.push_back(std::move(event));
    forget(id);
}

void LlamaEngine::forget(RequestId id) {
    const auto it = live_.find(id);
    if (it->second.waits_for_guide || it->second.encodes) --elsewhere_;
    const double took = to_seconds(clock_.now() - it->second.accepted);
    mean_request_seconds_ =
        mean_request_seconds_ == 0.0 ? took : 0.9 * mean_request_seconds_ + 0.1 * took;
    live_.erase(it);
    const std::scoped_lock lock(mutex_);
    --accepted_;
}

void LlamaEngine::fail_lost(const std::vector<RequestId>& lost, const Error& why) {
    for (const RequestId id : lost) finish(id, protocol::FinishReason::kError, why);
}

void LlamaEngine::end_all(const Error& why) {
    std::vector<RequestId> ids;
    for (const auto& [id, live] : live_) ids.push_back(id);
    for (const RequestId id : ids) {
        scheduler_.cancel(id);
        if (encoder_) encoder_->cancel(id);
    }
    fail_lost(ids, why);
}

protocol::StepBatch& LlamaEngine::batch_for(const std::shared_ptr<StepSink>& sink) {
    for (Delivery& d : deliveries_) {
        if (d.sink == sink) return d.batch;
    }
    return deliveries_.emplace_back(Delivery{sink, {}}).batch;
}

void LlamaEngine::deliver() {
    for (Delivery& d : deliveries_) d.sink->on_step(std::move(d.batch));
    deliveries_.clear();
}

void LlamaEngine::publish() {
    work_.preemptions = scheduler_.preemptions();
    const protocol::LoadReport load = scheduler_.load();
    const std::scoped_lock lock(mutex_);
    load_ = load;
    published_ = work_;
    published_.refused_imports = refused_imports_;
    published_request_seconds_ = mean_request_seconds_;
}

}  // namespace llama

Result<std::unique_ptr<Engine>> make_llama_engine(LlamaOptions options, KvEventSink kv_events) {
    auto context = llama::LlamaContext::load(options);
    if (!context) return tl::unexpected(context.error());
    std::unique_ptr<llama::MediaEncoder> encoder;
    if (!options.mmproj_path.empty()) {
        if (!options.handoffs) {
            return error(ErrorCode::kInvalidArgument, "An encoder needs a way to hand over.");
        }
        auto loaded = llama::MediaEncoder::load(options.mmproj_path, (*context)->model(),
                                                (*context)->threads());
        if (!loaded) return tl::unexpected<Error>(std::move(loaded.error()));
        encoder = std::move(*loaded);
    }
    return std::make_unique<llama::LlamaEngine>(std::move(*context), std::move(encoder),
                                                std::move(kv_events), std::move(options));
}

}  // namespace stator::engine
