#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/engine/engine.h"
#include "stator/net/http_pool.h"
#include "stator/runtime/loop.h"

namespace stator::engine {

/// A request on its way to an engine. Everything on the engine's loop.
class ActiveCall {
  public:
    virtual ~ActiveCall() = default;
    /// Its end follows in a later turn.
    virtual void cancel() {
        cancelled = true;
        call->cancel();
    }

    RequestId id;
    std::shared_ptr<net::HttpCall> call;
    bool cancelled = false;  ///< set before `call` is cancelled
};

/// What an engine does for its requests on their way. On its loop.
class CallHost {
  public:
    virtual ~CallHost() = default;

    [[nodiscard]] virtual const Clock& clock() const = 0;
    [[nodiscard]] virtual runtime::Loop& loop() = 0;
    /// Goes out at this turn's end.
    [[nodiscard]] virtual protocol::StepBatch& batch_of(const std::shared_ptr<StepSink>& sink) = 0;
    /// Whether this engine tells how much of a prompt it had: vLLM leaves out a 0. `told`: of this
    /// one; `finished`: the answer is whole.
    [[nodiscard]] virtual bool tells_cached(bool told, bool finished) = 0;
    /// A request has lost its connection.
    virtual void doubt() = 0;
    /// It has failed at a request, and not for what its client has asked.
    virtual void failed() = 0;
    /// For forward_pass_metrics(). What an engine has generated, or computed of a prompt for
    /// another one, shows that it lives.
    virtual void count(std::uint64_t prompt, std::uint64_t cached, std::uint64_t generated) = 0;
    /// The request's last event is in its batch, and with it its call is over.
    virtual void ended(RequestId id) = 0;
    /// … and its call goes on, until drained().
    virtual void handed_off(RequestId id, const protocol::HandoffId& handoff) = 0;
    virtual void drained(const protocol::HandoffId& handoff) = 0;
};

/// What an answer's head says for errors.
struct AnswerHead {
    int status = 0;
    unsigned retry_after_s = 0;
};
[[nodiscard]] AnswerHead answer_head(const net::HttpResponseHead& head);

/// Why a call gave no whole answer, as an error of ours: kUnavailable where the request may be sent
/// elsewhere. nullopt: it was cancelled, by us or by its deadline.
/// What speaks against the engine makes `host` doubt it.
[[nodiscard]] std::optional<Error> call_error(CallHost& host, const net::HttpFailure& failure,
                                              Deadline deadline);

/// Whether an error of an engine speaks against it: not one that its client has made, no refusal.
[[nodiscard]] inline bool failed_at(const Error& error) {
    return error.retryable &&
           (error.code == ErrorCode::kInternal || error.code == ErrorCode::kDataLoss);
}

/// Of an answer that refuses, kept for the error's words.
inline constexpr std::size_t kMaxErrorBytes = 64 * 1024;

}  // namespace stator::engine
