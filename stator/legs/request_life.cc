#include "stator/legs/request_life.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"

namespace stator::legs {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepEvent;
using protocol::TokenOutput;

namespace {

/// Room made in advance, so that a token of an ordinary request allocates nothing.
constexpr std::uint32_t kReserveTokens = 1024;

}  // namespace

RequestLife::RequestLife(GenerateRequest request, std::uint32_t max_migrations)
    : original_(std::make_shared<const GenerateRequest>(std::move(request))),
      max_migrations_(max_migrations) {
    output_.reserve(std::min(original_->max_tokens, kReserveTokens));
}

std::shared_ptr<const GenerateRequest> RequestLife::next_request() {
    STATOR_ASSERT(!ended_ && output_.size() < original_->max_tokens);
    leg_first_ = output_.size();
    if (output_.empty()) return original_;
    const auto delivered = static_cast<std::uint32_t>(output_.size());
    auto next = std::make_shared<GenerateRequest>(*original_);
    next->prompt.insert(next->prompt.end(), output_.begin(), output_.end());
    next->resumed_tokens += delivered;
    next->max_tokens -= delivered;
    next->min_tokens -= std::min(next->min_tokens, delivered);
    return next;
}

bool RequestLife::take(StepEvent& event, std::span<const TokenOutput> tokens) {
    STATOR_ASSERT(!ended_);
    const bool elsewhere = event.finish == FinishReason::kError && event.error &&
                           worth_another_try(*event.error) && tokens.empty();
    if (elsewhere) return false;
    if (!prompt_tokens_ && !tokens.empty()) {
        prompt_tokens_ = event.prompt_tokens;
        cached_tokens_ = event.cached_tokens;
    }
    for (const TokenOutput& token : tokens) output_.push_back(token.token);
    if (event.prompt_tokens != 0 || event.finish) fill_usage(event);
    ended_ = event.finish.has_value();
    return true;
}

std::optional<StepEvent> RequestLife::lost(const Error& why) {
    STATOR_ASSERT(!ended_);
    if (const auto how = complete()) return end(*how);
    if (migrations_ < max_migrations_) {
        ++migrations_;
        return std::nullopt;
    }
    Error e = why;
    e.code = ErrorCode::kUnavailable;
    e.retryable = true;
    e.message = fmt::format(
        "the worker was lost after {} tokens ({}), and the request was moved to another one {} "
        "times already",
        output_.size(), why.message, migrations_);
    return end(FinishReason::kError, std::move(e));
}

StepEvent RequestLife::end(FinishReason how, std::optional<Error> why) {
    STATOR_ASSERT(!ended_);
    ended_ = true;
    StepEvent event;
    event.id = original_->id;
    event.finish = how;
    event.error = std::move(why);
    fill_usage(event);
    return event;
}

bool RequestLife::worth_another_try(const Error& error) {
    return error.code == ErrorCode::kOverloaded || error.code == ErrorCode::kUnavailable ||
           error.code == ErrorCode::kAborted;
}

void RequestLife::fill_usage(StepEvent& event) const {
    event.prompt_tokens = prompt_tokens_.value_or(
        static_cast<std::uint32_t>(original_->prompt.size() - original_->resumed_tokens));
    event.cached_tokens = cached_tokens_;
}

std::optional<FinishReason> RequestLife::complete() const {
    if (output_.empty()) return std::nullopt;
    // As engines decide it: a stop token counts once min_tokens are out before it.
    if (output_.size() > original_->min_tokens &&
        std::ranges::find(original_->stop_token_ids, output_.back()) !=
            original_->stop_token_ids.end()) {
        return FinishReason::kStop;
    }
    if (output_.size() >= original_->max_tokens) return FinishReason::kLength;
    return std::nullopt;
}

}  // namespace stator::legs
