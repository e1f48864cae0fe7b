#include "stator/engine/http/generation.h"

#include <algorithm>
#include <utility>

#include "stator/engine/dialects/engine_error.h"
#include "stator/runtime/asio.h"

namespace stator::engine {

using net::HttpFailure;
using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;

namespace {

/// Refusals that come before an engine has looked at a request.
constexpr int kTooManyRequests = 429;
constexpr int kServiceUnavailable = 503;

}  // namespace

Generation::Generation(CallHost& host, const GenerateRequest& request, Dialect dialect,
                       Handed handed, std::shared_ptr<StepSink> sink)
    : host_(host),
      sink_(std::move(sink)),
      prompt_tokens_(static_cast<std::uint32_t>(request.prompt.size()) - request.resumed_tokens),
      deadline_(request.deadline),
      handed_(handed),
      reader_(dialect, request.top_logprobs >= 0) {
    id = request.id;
}

void Generation::started() {
    if (!handed_.first_within) return;
    waits_.emplace(runtime::asio_context(host_.loop()));
    waits_->expires_after(*handed_.first_within);
    waits_->async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->ended_ || self->told_prompt_) return;
        self->late_ = true;
        self->call->cancel();
    });
}

void Generation::on_head(const net::HttpResponseHead& head) { head_ = answer_head(head); }

void Generation::on_body(std::string_view piece, TimePoint /*at*/) {
    if (ended_) return;
    if (head_.status != 200) {
        refusal_.append(
            piece.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, refusal_.size())));
        return;
    }
    if (auto ok = events_.feed(piece); !ok) {
        Error why = error(ErrorCode::kDataLoss, "{}", ok.error().message).value();
        why.retryable = true;
        end(FinishReason::kError, std::move(why));
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
    if (waits_) waits_->cancel();
    if (ended_) return;
    if (cancelled) return end(FinishReason::kCancelled, {});
    if (late_) {
        return fail(error(ErrorCode::kUnavailable,
                          "the KV of a prompt that another engine computes did not come in {} ms",
                          handed_.first_within->count())
                        .value(),
                    false);
    }
    if (failure == nullptr && head_.status == 200) {
        auto ok = reader_.end(piece_);
        if (ok) return give(piece_);
        ok.error().code = ErrorCode::kInternal;
        ok.error().retryable = true;
        return fail(std::move(ok.error()), false);
    }
    if (failure == nullptr) {
        return fail(engine_error(head_.status, refusal_, head_.retry_after_s),
                    head_.status == kTooManyRequests || head_.status == kServiceUnavailable);
    }
    auto why = call_error(host_, *failure, deadline_);
    if (!why) return end(FinishReason::kCancelled, {});
    const bool untouched = failure->kind == HttpFailure::Kind::kConnect ||
                           failure->kind == HttpFailure::Kind::kNotSent;
    // It may be the request that has ended the engine: no refusal, of which there may be many.
    if (!untouched) why->code = ErrorCode::kInternal;
    why->retryable = true;
    fail(std::move(*why), untouched);
}

/// `untouched`: the engine has not looked at the request, so that it has fetched nothing either.
void Generation::fail(Error why, bool untouched) {
    if (handed_.kv && !untouched && !told_prompt_ &&
        (why.code == ErrorCode::kUnavailable || why.code == ErrorCode::kAborted ||
         why.code == ErrorCode::kOverloaded)) {
        why.code = ErrorCode::kInternal;
    }
    end(FinishReason::kError, std::move(why));
}

void Generation::give(AnswerReader::Piece& piece) {
    if (piece.tokens.empty() && !piece.finish) return;
    if (handed_.kv && !told_prompt_ && piece.tokens.empty()) {
        // It broke off by itself; only the handoff was special.
        if (piece.finish == FinishReason::kCancelled) {
            piece.finish = FinishReason::kError;
            piece.error = error(ErrorCode::kInternal, "the engine gave the request up").value();
        } else if (piece.error && piece.error->code != ErrorCode::kInvalidArgument) {
            piece.error->code = ErrorCode::kInternal;
        }
    }
    deliver(piece);
}

void Generation::deliver(AnswerReader::Piece& piece) {
    StepBatch& batch = host_.batch_of(sink_);
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
    const bool tells = host_.tells_cached(piece.cached_told, piece.finish.has_value());
    if ((first && piece.cached_told) || (piece.finish && tells)) {
        event.prompt_tokens = prompt_tokens_;
        event.cached_tokens = std::min(piece.cached_tokens, prompt_tokens_);
    }
    told_prompt_ = told_prompt_ || first;
    event.finish = piece.finish;
    event.error = std::move(piece.error);
    // A prompt whose KV came from elsewhere was counted there.
    const bool computed = first && !handed_.kv;
    host_.count(computed ? piece.prompt_tokens : 0, computed ? piece.cached_tokens : 0,
                piece.tokens.size());
    if (event.error && failed_at(*event.error)) host_.failed();
    const bool last = event.finish.has_value();
    batch.events.push_back(std::move(event));
    if (!last) return;
    ended_ = true;
    const auto keep = shared_from_this();
    host_.ended(id);
}

void Generation::end(FinishReason how, std::optional<Error> why) {
    AnswerReader::Piece piece;
    piece.finish = how;
    piece.error = std::move(why);
    deliver(piece);
}

}  // namespace stator::engine
