#include <set>
#include <span>
#include <string>
#include <utility>

#include "stator/base/log.h"
#include "stator/engine/llama/llama_engine_impl.h"
#include "stator/engine/llama/media_rows.h"

// What LlamaEngine does for legs: checks, imports, exports, encodings.

namespace stator::engine::llama {

namespace {
constexpr std::size_t kMaxRefusalsLogged = 32;
}

Result<void> LlamaEngine::check(const protocol::GenerateRequest& request) const {
    const std::uint64_t total = request.prompt.size() + std::uint64_t{request.max_tokens};
    if (request.prompt.empty() || request.max_tokens == 0 || total > info_.context_tokens) {
        return param_error("max_tokens",
                           "Prompt ({} tokens) and max_tokens ({}) must both be at least 1 and "
                           "together at most {}.",
                           request.prompt.size(), request.max_tokens, info_.context_tokens);
    }
    if (request.resumed_tokens >= request.prompt.size()) {
        return param_error("resumed_tokens",
                           "{} resumed tokens leave nothing of a prompt of {} tokens.",
                           request.resumed_tokens, request.prompt.size());
    }
    if (auto ok = check_leg(request); !ok) return ok;
    if (request.constraint && request.leg != protocol::Leg::kPrefill && !guides_) {
        auto refused =
            error(ErrorCode::kUnsupported, "This engine can't hold its output to a constraint.");
        refused.value().param = "constraint";
        return refused;
    }
    if (!request.media.empty() && context_->embedding_width() == 0) {
        auto refused = error(ErrorCode::kUnsupported, "This model takes no media.");
        refused.value().param = "media";
        return refused;
    }
    return check_prompt(request, context_->vocab_size());
}

Result<void> LlamaEngine::check_leg(const protocol::GenerateRequest& request) const {
    const bool prefill = request.leg == protocol::Leg::kPrefill;
    if (prefill && !handoffs_.exports()) {
        return error(ErrorCode::kUnsupported, "This engine hands no KV over to others.");
    }
    if (prefill && request.prompt.size() < 2) {
        return error(ErrorCode::kUnsupported,
                     "A prompt of one token leaves a prefill leg nothing to do.");
    }
    return {};
}

Result<void> LlamaEngine::check_encode(const protocol::GenerateRequest& request) const {
    if (!encoder_) return error(ErrorCode::kUnsupported, "This engine encodes no media.");
    if (request.media.size() != 1 || !request.media[0].content) {
        return param_error("media", "An encode leg has one media item, with its content.");
    }
    return {};
}

/// KV that does not fit the request is left out: the prompt is then computed here.
void LlamaEngine::check_kv(protocol::GenerateRequest& request) {
    if (request.leg != protocol::Leg::kDecode) request.kv.reset();
    if (!request.kv) return;
    const std::string why = handoffs_.why_not(request);
    if (why.empty()) return;
    request.kv.reset();
    note_refused(why);
}

/// Logged once for each `why`, with what was found then.
void LlamaEngine::note_refused(const std::string& why, const std::string& found) {
    {
        const std::scoped_lock lock(mutex_);
        ++refused_imports_;
        if (refusals_logged_.size() >= kMaxRefusalsLogged || !refusals_logged_.insert(why).second) {
            return;
        }
    }
    log_warn("KV that came by handoff is not used; the prompt is computed here.",
             {{"because", why}, {"found", found}});
}

std::uint32_t LlamaEngine::cached_prefix_tokens(const protocol::GenerateRequest& request) const {
    if (info_.block_tokens == 0 || request.prompt.empty()) return 0;
    tokens::TokenSequence sequence(info_.block_tokens, seed_of(request.cache_salt));
    sequence.append(std::span(request.prompt).first(request.prompt.size() - 1));
    return known_.leading(sequence.sequence_hashes()) * info_.block_tokens;
}

/// KV from elsewhere becomes that of decode legs' sequences.
void LlamaEngine::take_over(StepPlan& plan) {
    const TimePoint start = clock_.now();
    for (KvImport& import : std::exchange(plan.imports, {})) {
        std::string why;
        const std::uint32_t until = context_->import_parts(import, why);
        import.from.reset();
        work_.imported_tokens += until - import.begin;
        if (until < import.end) note_refused("a part of it is damaged", "one that " + why);
        scheduler_.imported(plan, import, until);
    }
    work_.handoff_seconds += to_seconds(clock_.now() - start);
}

/// The KV of prefill legs that are done is left for others. False if none was.
bool LlamaEngine::hand_over() {
    ready_.clear();
    scheduler_.ready(ready_);
    for (const RequestId id : ready_) {
        const TimePoint start = clock_.now();
        const Sequence& s = *scheduler_.find(id);
        auto handoff =
            handoffs_.export_kv(*context_, s.kv, s.tokens.tokens(), s.request.cache_salt);
        work_.handoff_seconds += to_seconds(clock_.now() - start);
        if (handoff) work_.exported_tokens += (*handoff)->tokens;
        const Progress progress = scheduler_.hand_over(id);
        protocol::StepEvent event;
        event.id = id;
        event.finish = handoff ? protocol::FinishReason::kHandoff : protocol::FinishReason::kError;
        event.prompt_tokens = progress.prompt_tokens;
        event.cached_tokens = progress.cached_tokens;
        if (handoff) {
            event.handoff = std::move(*handoff);
        } else {
            event.error = std::move(handoff.error());
        }
        batch_for(live_.at(id).sink).events.push_back(std::move(event));
        forget(id);
    }
    return !ready_.empty();
}

/// On the desk's thread.
void LlamaEngine::take_encoded(RequestId id, EncoderDesk::Left left, double seconds) {
    {
        const std::scoped_lock lock(mutex_);
        encoded_.push_back({id, std::move(left), seconds});
    }
    wake_.notify_one();
}

void LlamaEngine::end_encoded(EncodeDone done) {
    work_.model_seconds += done.seconds;
    const auto it = live_.find(done.id);
    if (it == live_.end()) return;  // the engine gave it up
    batch_for(it->second.sink).events.push_back(end_of(done.id, std::move(done.left)));
    forget(done.id);
}

/// A decode leg whose KV came needs no pictures; if it has to be computed after all they lack.
void LlamaEngine::withdraw_what_lacks_media(StepPlan& plan) {
    for (std::size_t i = 0; i < plan.batch.size();) {
        const BatchToken& token = plan.batch[i];
        if (token.token < tokens::kFirstMediaToken || token.row != nullptr) {
            ++i;
            continue;
        }
        const RequestId id = scheduler_.withdraw(plan, token.sequence);
        auto why = error(ErrorCode::kUnavailable,
                         "The prompt has to be computed here and its media have not come.");
        why.value().param = "media";
        why.value().retryable = true;
        finish(id, protocol::FinishReason::kError, std::move(why.value()));
        i = 0;
    }
}

}  // namespace stator::engine::llama
