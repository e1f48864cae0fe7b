#include "stator/engine/http/prefill_leg.h"

#include <sys/random.h>

#include <algorithm>
#include <span>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/engine/dialects/engine_error.h"

namespace stator::engine {

using net::HttpFailure;
using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;

namespace {

/// An object, and what stands around it.
constexpr std::size_t kMaxAnswerBytes = protocol::kMaxObjectBytes + 256 * 1024;

std::shared_ptr<protocol::Handoff> handoff_of(const GenerateRequest& request, std::string layout) {
    auto h = std::make_shared<protocol::Handoff>();
    STATOR_CHECK(::getrandom(h->id.data(), h->id.size(), 0) == static_cast<ssize_t>(h->id.size()),
                 "the kernel has random numbers");
    h->layout = std::move(layout);
    h->tokens = static_cast<std::uint32_t>(request.prompt.size() - 1);
    h->content =
        protocol::kv_content(std::span(request.prompt).first(h->tokens), request.cache_salt);
    return h;
}

}  // namespace

PrefillLeg::PrefillLeg(CallHost& host, const GenerateRequest& request, KvConnector connector,
                       std::string layout, std::string object, Deadline deadline,
                       std::chrono::milliseconds lease, std::shared_ptr<StepSink> sink)
    : host_(host),
      sink_(std::move(sink)),
      connector_(connector),
      lease_(lease),
      prompt_(request.prompt.size()),
      resumed_(request.resumed_tokens),
      deadline_(deadline),
      handoff_(handoff_of(request, std::move(layout))) {
    id = request.id;
    handoff_->object = std::move(object);
}

void PrefillLeg::started() {
    if (!is_early(connector_)) return;
    handoff_->early = true;
    hand_off(std::nullopt);
    host_.handed_off(id, handoff_->id);
}

void PrefillLeg::on_body(std::string_view piece, TimePoint /*at*/) {
    const std::size_t most = head_.status == 200 ? kMaxAnswerBytes : kMaxErrorBytes;
    answer_.append(piece.substr(0, most - std::min(most, answer_.size())));
}

Result<PrefillAnswer> PrefillLeg::outcome(const HttpFailure* failure) {
    if (failure != nullptr) {
        auto why = call_error(host_, *failure, deadline_);
        if (why) return tl::unexpected(std::move(*why));
        return error(ErrorCode::kCancelled, "the request was cancelled");
    }
    if (head_.status != 200) {
        return tl::unexpected(engine_error(head_.status, answer_, head_.retry_after_s));
    }
    return read_prefill_answer(connector_, answer_, prompt_);
}

void PrefillLeg::on_end(const HttpFailure* failure, TimePoint /*at*/) {
    const auto keep = shared_from_this();
    auto answer = outcome(failure);
    std::optional<std::uint32_t> cached;
    if (answer) {
        cached = answer->cached_tokens;
        if (host_.tells_cached(cached.has_value(), true) && !cached) cached = 0;
        host_.count(prompt_, cached.value_or(0), 0);
    }
    if (!answer && !cancelled && failed_at(answer.error())) host_.failed();
    if (handed_) {
        if (!answer && !cancelled) {
            log_warn("The engine failed at a prompt whose KV another engine waits for.",
                     {{"tokens", prompt_}, {"why", answer.error().message}});
            // Who waits for it is to give it up at once.
            host_.batch_of(sink_).lost_handoffs.push_back({id, std::move(answer.error())});
        }
        return host_.drained(handoff_->id);
    }
    if (answer && !cancelled) {
        handoff_->object = std::move(answer->object);
        hand_off(cached);
        return host_.ended(id);
    }
    StepEvent event;
    event.finish = FinishReason::kCancelled;
    if (!cancelled && answer.error().code != ErrorCode::kCancelled) {
        event.finish = FinishReason::kError;
        event.error = std::move(answer.error());
    }
    end(std::move(event));
    host_.ended(id);
}

void PrefillLeg::hand_off(std::optional<std::uint32_t> cached_tokens) {
    handed_ = true;
    handoff_->expires = Deadline::after(host_.clock().now(), lease_);
    StepEvent event;
    event.finish = FinishReason::kHandoff;
    event.handoff = handoff_;
    if (cached_tokens) {
        event.prompt_tokens = static_cast<std::uint32_t>(prompt_) - resumed_;
        event.cached_tokens = std::min(*cached_tokens, event.prompt_tokens);
    }
    end(std::move(event));
}

void PrefillLeg::end(StepEvent event) {
    event.id = id;
    StepBatch& batch = host_.batch_of(sink_);
    event.first = static_cast<std::uint32_t>(batch.tokens.size());
    batch.events.push_back(std::move(event));
}

}  // namespace stator::engine
