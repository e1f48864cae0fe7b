#include "stator/engine/http/media_errand.h"

#include <algorithm>
#include <utility>

#include "stator/engine/dialects/engine_error.h"

namespace stator::engine {

MediaErrand::MediaErrand(CallHost& host, protocol::RequestId request, Deadline deadline,
                         std::chrono::milliseconds within, Done done)
    : host_(host), deadline_(deadline), within_(within), done_(std::move(done)) {
    id = request;
}

void MediaErrand::start(net::HttpPool& pool, std::vector<MediaDesk::Question> questions,
                        const net::HttpHeaders& headers) {
    open_ = questions.size();
    answers_.resize(open_);
    const Deadline limit = std::min(deadline_, Deadline::after(host_.clock().now(), within_));
    for (std::size_t i = 0; i < questions.size(); ++i) {
        net::HttpCallRequest call{.method = "POST",
                                  .path = std::move(questions[i].path),
                                  .headers = headers,
                                  .body = std::move(questions[i].body),
                                  .deadline = limit};
        call.headers.emplace_back("Content-Type", "application/json");
        calls_.push_back(pool.start(
            std::move(call), std::make_shared<WholeAnswer>(
                                 MediaDesk::kMaxAnswerBytes,
                                 [self = shared_from_this(), i](WholeAnswer::Body body,
                                                                const net::HttpFailure* failure) {
                                     self->take(i, std::move(body), failure);
                                 })));
    }
}

void MediaErrand::cancel() {
    cancelled = true;
    for (const auto& call : calls_) call->cancel();
}

void MediaErrand::take(std::size_t question, WholeAnswer::Body body,
                       const net::HttpFailure* failure) {
    if (!done_) return;
    const auto none = [] { return error(ErrorCode::kCancelled, "the request was cancelled"); };
    if (cancelled) return finish(none());
    if (failure != nullptr) {
        auto why = call_error(host_, *failure, deadline_);
        return finish(why ? tl::unexpected<Error>(std::move(*why)) : none());
    }
    constexpr int kOk = 200;
    if (body.status != kOk) {
        return finish(
            tl::unexpected<Error>(engine_error(body.status, body.text, body.retry_after_s)));
    }
    if (!body.whole) {
        return finish(error(ErrorCode::kInvalidArgument,
                            "what the engine makes of a media item is longer than {} bytes",
                            MediaDesk::kMaxAnswerBytes));
    }
    answers_[question] = std::move(body.text);
    if (--open_ == 0) finish(std::move(answers_));
}

void MediaErrand::finish(Result<std::vector<std::string>> how) {
    const Done done = std::exchange(done_, nullptr);
    // Those of calls that have ended are nothing to them.
    for (const auto& call : calls_) call->cancel();
    calls_.clear();
    done(std::move(how));
}

}  // namespace stator::engine
