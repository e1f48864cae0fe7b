#include "stator/legs/request_life.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"

namespace stator::legs {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::Leg;
using protocol::MediaItem;
using protocol::StepEvent;
using protocol::TokenOutput;

namespace {

/// Room made in advance, so that a token of an ordinary request allocates nothing.
constexpr std::uint32_t kReserveTokens = 1024;

/// What the client has caused, or wants: another rank would say the same.
bool clients(const Error& error) {
    return error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kTooLarge ||
           error.code == ErrorCode::kDeadlineExceeded || error.code == ErrorCode::kCancelled;
}

/// Embeddings that an engine keeps by a name: they are not used up.
bool is_object(const std::shared_ptr<const Handoff>& embeddings) {
    return embeddings && !embeddings->object.empty();
}

std::uint32_t size_of(const std::vector<protocol::MediaPiece>& pieces) {
    std::uint32_t n = 0;
    for (const auto& piece : pieces)
        n += piece.rows + static_cast<std::uint32_t>(piece.text.size());
    return n;
}

}  // namespace

RequestLife::RequestLife(GenerateRequest request, std::uint32_t max_migrations)
    : original_(std::make_shared<const GenerateRequest>(std::move(request))),
      max_migrations_(max_migrations) {
    if (encodes()) return;
    output_.reserve(std::min(original_->max_tokens, kReserveTokens));
    for (const MediaItem& item : original_->media) media_.push_back(item.embeddings);
}

RequestLife::Step RequestLife::next_step(TimePoint by) {
    if (encodes()) return Step::kEncode;
    if (handoff_) return Step::kDecode;
    for (std::size_t i = 0; i < media_.size(); ++i) {
        if (media_[i] && media_[i]->expires.reached(by) && original_->media[i].content) {
            release(media_[i]);
        }
        if (!media_[i]) return Step::kEncode;
    }
    return Step::kPrompt;
}

std::shared_ptr<const GenerateRequest> RequestLife::to_route() const {
    if (output_.empty()) return original_;
    const auto delivered = static_cast<std::uint32_t>(output_.size());
    auto next = std::make_shared<GenerateRequest>(*original_);
    next->prompt.insert(next->prompt.end(), output_.begin(), output_.end());
    next->resumed_tokens += delivered;
    next->max_tokens -= delivered;
    next->min_tokens -= std::min(next->min_tokens, delivered);
    return next;
}

std::vector<std::string> RequestLife::media_methods() const {
    const Handoff* fewest = nullptr;
    for (const HandoffPtr& item : media_) {
        if (!item || item->places.empty()) continue;
        if (fewest == nullptr || item->places.size() < fewest->places.size()) fewest = item.get();
    }
    std::vector<std::string> out;
    if (fewest == nullptr) return out;
    for (const auto& place : fewest->places) out.push_back(place.method);
    return out;
}

std::shared_ptr<const GenerateRequest> RequestLife::next_request(Leg leg) {
    STATOR_ASSERT(!ended_);
    leg_ = leg;
    leg_first_ = output_.size();
    if (leg == Leg::kPrefill) split_counted_ = false;
    if (encodes()) return original_;
    STATOR_ASSERT(output_.size() < original_->max_tokens);
    if (leg == Leg::kEncode) return encode_request();
    auto whole = to_route();
    if (leg == Leg::kWhole && media_.empty()) return whole;
    auto next = whole == original_ ? std::make_shared<GenerateRequest>(*original_)
                                   : std::const_pointer_cast<GenerateRequest>(whole);
    next->leg = leg;
    if (leg == Leg::kDecode) next->handoff = handoff_;
    for (std::size_t i = 0; i < next->media.size(); ++i) {
        // Engines of others need the pixels beside them, in every leg.
        const bool engines_own = is_object(media_[i]);
        // Else they stay here, and a decode leg needs to know no more than where items stand.
        if (!engines_own) next->media[i].content = nullptr;
        next->media[i].embeddings = leg == Leg::kDecode && !engines_own ? nullptr : media_[i];
    }
    return next;
}

const MediaItem& RequestLife::item_to_encode() const {
    if (encodes()) return original_->media.front();
    const auto missing = std::ranges::find(media_, nullptr);
    STATOR_ASSERT(missing != media_.end());
    return original_->media[static_cast<std::size_t>(missing - media_.begin())];
}

std::shared_ptr<const GenerateRequest> RequestLife::encode_request() const {
    auto next = std::make_shared<GenerateRequest>();
    next->id = original_->id;
    next->leg = Leg::kEncode;
    next->max_tokens = 1;
    next->priority = original_->priority;
    next->tenant = original_->tenant;
    next->traceparent = original_->traceparent;
    next->deadline = original_->deadline;
    next->cache_salt = original_->cache_salt;
    next->media.push_back(item_to_encode());
    next->media.front().embeddings = nullptr;
    return next;
}

RequestLife::Taken RequestLife::take(StepEvent& event, std::span<const TokenOutput> tokens) {
    STATOR_ASSERT(!ended_);
    if (event.finish == FinishReason::kHandoff) return take_end_of_leg(event);
    if (event.finish == FinishReason::kError && event.error && tokens.empty()) {
        if (const auto taken = take_failure(event)) return *taken;
    }
    const bool done = event.finish == FinishReason::kStop || event.finish == FinishReason::kLength;
    if (!tokens.empty() || done) used();
    if (!prompt_tokens_ && !tokens.empty()) {
        prompt_tokens_ = usage_of(event);
        cached_tokens_ = event.cached_tokens;
        usage_open_ = true;
    } else if (usage_open_ && event.finish && event.prompt_tokens != 0) {
        cached_tokens_ = event.cached_tokens;  // some engines tell it at the end alone
    }
    for (const TokenOutput& token : tokens) output_.push_back(token.token);
    if (event.prompt_tokens != 0 || event.finish) fill_usage(event);
    if (event.finish) {
        ended_ = true;
        release(handoff_);
        release_media();
    }
    return Taken::kPassOn;
}

/// An error without a token: whether it is another rank's turn. None: the client is told.
std::optional<RequestLife::Taken> RequestLife::take_failure(StepEvent& event) {
    if (lacks_media(*event.error) && !media_.empty()) {
        if (leg_ == Leg::kDecode) forget_prefill();
        release_media();
        if (migrations_ >= max_migrations_ || !can_encode_again()) return std::nullopt;
        ++migrations_;
        return Taken::kNextLeg;
    }
    if (worth_another_try(*event.error)) return refused() ? Taken::kRefused : Taken::kLost;
    // A leg that the fleet has made up is the fleet's affair; the whole request may go well.
    const bool ours = leg_ == Leg::kPrefill || leg_ == Leg::kDecode ||
                      (leg_ == Leg::kEncode && event.error->code != ErrorCode::kUnsupported);
    if (clients(*event.error)) return std::nullopt;
    if (ours && refused()) {
        if (leg_ != Leg::kEncode) split_failed();
        return Taken::kLost;
    }
    // The rank has failed at it, and another one may not: a move, since it may be the request.
    if (event.error->retryable) return Taken::kLost;
    return std::nullopt;
}

RequestLife::Taken RequestLife::take_end_of_leg(StepEvent& event) {
    HandoffPtr handoff = std::exchange(event.handoff, nullptr);
    if (!fits(handoff)) {
        if (handoff) release(handoff);
        if (leg_ != Leg::kEncode) split_failed();
        return Taken::kLost;
    }
    if (leg_ == Leg::kEncode) {
        if (encodes()) {
            event.handoff = std::move(handoff);
            ended_ = true;
            return Taken::kPassOn;
        }
        *std::ranges::find(media_, nullptr) = std::move(handoff);
        return Taken::kNextLeg;
    }
    used();
    if (output_.empty()) {
        prompt_tokens_ = usage_of(event);
        cached_tokens_ = event.cached_tokens;
    }
    handoff_ = std::move(handoff);
    return Taken::kNextLeg;
}

/// Whether a leg has left what it was asked for.
bool RequestLife::fits(const HandoffPtr& handoff) const {
    if (!handoff) return false;
    if (leg_ == Leg::kPrefill) {
        return handoff->kind == Handoff::Kind::kKv &&
               std::size_t{handoff->tokens} + 1 == original_->prompt.size() + output_.size();
    }
    if (leg_ != Leg::kEncode || handoff->kind != Handoff::Kind::kEmbeddings) return false;
    if (encodes()) return true;
    // The prompt was built for the places that the item took the first time.
    return item_to_encode().tokens == size_of(handoff->pieces);
}

/// The leg has given something: what it was told of is claimed.
void RequestLife::used() {
    if (leg_ == Leg::kDecode) {
        handoff_.reset();
        return;
    }
    for (HandoffPtr& embeddings : media_) {
        if (!is_object(embeddings)) embeddings.reset();
    }
}

void RequestLife::release(HandoffPtr& handoff) {
    if (handoff) releases_.push_back(std::exchange(handoff, nullptr));
}

void RequestLife::release_media() {
    for (HandoffPtr& embeddings : media_) release(embeddings);
}

bool RequestLife::can_encode_again() const {
    for (std::size_t i = 0; i < media_.size(); ++i) {
        if (!media_[i] && !original_->media[i].content) return false;
    }
    return true;
}

std::optional<StepEvent> RequestLife::lost(const Error& why) {
    STATOR_ASSERT(!ended_);
    usage_open_ = false;
    if (const auto how = complete()) return end(*how);
    if (leg_ == Leg::kDecode) {
        forget_prefill();
    } else if (leg_ != Leg::kEncode) {
        release_media();
    }
    if (migrations_ < max_migrations_) {
        ++migrations_;
        return end_without_media();
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

std::optional<StepEvent> RequestLife::give_up_handoff() {
    forget_prefill();
    return end_without_media();
}

void RequestLife::split_failed() {
    whole_only_ = true;
    if (!std::exchange(split_counted_, true)) ++failed_splits_;
}

/// Whoever generates next computes the prompt, and without tokens so far it is that one's usage.
void RequestLife::forget_prefill() {
    release(handoff_);
    split_failed();
    if (!output_.empty()) return;
    prompt_tokens_.reset();
    cached_tokens_ = 0;
}

/// Ends where an item's embeddings are gone and it can't be encoded again.
std::optional<StepEvent> RequestLife::end_without_media() {
    if (handoff_ || encodes() || can_encode_again()) return std::nullopt;
    Error e =
        error(ErrorCode::kUnavailable, "a media item was lost and is not here any more").value();
    e.retryable = true;
    return end(FinishReason::kError, std::move(e));
}

StepEvent RequestLife::end(FinishReason how, std::optional<Error> why) {
    STATOR_ASSERT(!ended_);
    ended_ = true;
    release(handoff_);
    release_media();
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

bool RequestLife::lacks_media(const Error& error) {
    return error.code == ErrorCode::kUnavailable && error.param == "media";
}

std::uint32_t RequestLife::usage_of(const StepEvent& event) const {
    if (event.prompt_tokens != 0) return event.prompt_tokens;
    return static_cast<std::uint32_t>(original_->prompt.size() - original_->resumed_tokens);
}

void RequestLife::fill_usage(StepEvent& event) const {
    event.prompt_tokens = prompt_tokens_.value_or(usage_of({}));
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
