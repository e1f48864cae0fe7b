#include "stator/engine/http/call_host.h"

namespace stator::engine {

using net::HttpFailure;

AnswerHead answer_head(const net::HttpResponseHead& head) {
    AnswerHead out{.status = head.status};
    const std::string_view wait = head.header("retry-after");
    for (const char c : wait.substr(0, 6)) {
        if (c < '0' || c > '9') break;
        out.retry_after_s = out.retry_after_s * 10 + static_cast<unsigned>(c - '0');
    }
    return out;
}

std::optional<Error> call_error(CallHost& host, const HttpFailure& failure, Deadline deadline) {
    Error why = failure.error;
    switch (failure.kind) {
        case HttpFailure::Kind::kCancelled:
            return std::nullopt;
        case HttpFailure::Kind::kTimeout:
            if (deadline.reached(host.clock().now())) return std::nullopt;
            [[fallthrough]];
        case HttpFailure::Kind::kConnect:
        case HttpFailure::Kind::kLost:
        case HttpFailure::Kind::kCutShort:
        case HttpFailure::Kind::kNotSent:
            why.code = ErrorCode::kUnavailable;
            why.retryable = true;
            host.doubt();
            break;
        case HttpFailure::Kind::kBadAnswer:
            why.code = ErrorCode::kDataLoss;
            break;
    }
    return why;
}

}  // namespace stator::engine
