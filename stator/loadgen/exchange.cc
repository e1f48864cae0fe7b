#include "stator/loadgen/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace stator::loadgen {
namespace {

using report::Outcome;
using Kind = net::HttpFailure::Kind;

constexpr std::size_t kMaxErrorBody = 16 * 1024;

std::string connect_reason(const Error& e) {
    if (e.code == ErrorCode::kDeadlineExceeded) return "connect timeout";
    if (e.code == ErrorCode::kUnauthenticated) return "TLS";
    return e.message.contains("refused") ? "connection refused" : "no connection";
}

Fault fault_of(const net::HttpFailure& failure) {
    const std::string& message = failure.error.message;
    switch (failure.kind) {
        case Kind::kNotSent:
            return {Outcome::kConnect, "not sent", message};
        case Kind::kConnect:
            return {Outcome::kConnect, connect_reason(failure.error), message};
        case Kind::kLost:
            return {Outcome::kReset, "closed without an answer", message};
        case Kind::kCutShort:
            return {Outcome::kReset, "cut short", message};
        case Kind::kTimeout:
            return {Outcome::kTimeout, "silence", message};
        case Kind::kBadAnswer:
            return {Outcome::kBadAnswer, "not HTTP", message};
        case Kind::kCancelled:
            return {Outcome::kUnfinished, "", message};
    }
    return {};
}

Fault fault_of(int status, const std::string& message) {
    const Outcome outcome =
        status == 429 || status == 503 ? Outcome::kRefused : Outcome::kHttpError;
    return {outcome, fmt::format("http {}", status), message};
}

}  // namespace

void Exchange::on_head(const net::HttpResponseHead& head) { status_ = head.status; }

void Exchange::on_body(std::string_view piece, TimePoint at) {
    if (status_ / 100 == 2) {
        answer_.feed(piece, at);
    } else {
        error_body_ += piece.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, error_body_.size()));
    }
}

void Exchange::on_end(const net::HttpFailure* failure, TimePoint at) {
    end_ = at;
    if (failure != nullptr) {
        fault_ = fault_of(*failure);
    } else if (status_ / 100 != 2) {
        fault_ = fault_of(status_, error_message(json_, error_body_));
    } else {
        answer_.end();
    }
    // What the server said in the stream explains more than the connection's end.
    if (answer_.fault() && (!fault_ || fault_->outcome == Outcome::kReset)) {
        fault_ = answer_.fault();
    }
    if (!fault_ && answer_.pieces().empty()) {
        fault_ = Fault{Outcome::kBadAnswer, "no tokens", "the answer has no tokens"};
    }
    if (!fault_) end_ = answer_.pieces().back();
    ended_(*this);
}

report::RequestRecord Exchange::record(TimePoint begin, std::vector<float>& gaps) const {
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
    const auto seconds = [begin](TimePoint at) { return to_seconds(at - begin); };
    report::RequestRecord r;
    r.index = start_.spec.index;
    r.intended = to_seconds(start_.intended);
    r.sent = seconds(sent_);
    r.end = seconds(end_);
    if (fault_) {
        r.outcome = fault_->outcome;
        r.reason = fault_->reason;
    }
    if (const auto& usage = answer_.usage()) {
        r.input_tokens = usage->prompt_tokens;
        r.cached_tokens = std::min(usage->cached_tokens, usage->prompt_tokens);
    } else {
        r.input_tokens = static_cast<std::uint32_t>(std::min(start_.spec.prompt_tokens(), kMost));
    }
    r.output_tokens = answer_.output_tokens();
    if (!answer_.pieces().empty()) {
        r.first_token = seconds(answer_.pieces().front());
        gaps = token_gaps(answer_.pieces(), r.output_tokens);
        r.gaps = gaps;
    }
    return r;
}

}  // namespace stator::loadgen
