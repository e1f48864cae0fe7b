#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "stator/codec/sse.h"
#include "stator/engine/dialects/answer_reader.h"
#include "stator/engine/http/call_host.h"

namespace stator::engine {

/// A request that generates: its answer as it streams. On the engine's loop.
///
/// With another engine's KV. Once the engine may have fetched it, the other one has given it free,
/// and nobody can be sent there again: what fails then before the first token is not kUnavailable,
/// with which the request would go to another rank as it is, but kInternal, so that its prompt is
/// computed again.
class Generation final : public net::HttpCallHandler,
                         public ActiveCall,
                         public std::enable_shared_from_this<Generation> {
  public:
    struct Handed {
        bool kv = false;  ///< it is given another engine's KV
        /// … whose prompt is still being computed: the first token comes within this, or nobody
        /// waits for it any longer.
        std::optional<std::chrono::milliseconds> first_within;
    };
    Generation(CallHost& host, const protocol::GenerateRequest& request, Dialect dialect,
               Handed handed, std::shared_ptr<StepSink> sink);

    /// The call is on its way.
    void started();

    void on_head(const net::HttpResponseHead& head) override;
    void on_body(std::string_view piece, TimePoint at) override;
    void on_end(const net::HttpFailure* failure, TimePoint at) override;

  private:
    /// What the engine has said.
    void give(AnswerReader::Piece& piece);
    void deliver(AnswerReader::Piece& piece);
    void end(protocol::FinishReason how, std::optional<Error> why);
    void fail(Error why, bool untouched);

    CallHost& host_;
    const std::shared_ptr<StepSink> sink_;
    const std::uint32_t prompt_tokens_;
    const Deadline deadline_;
    const Handed handed_;
    AnswerReader reader_;
    codec::SseReader events_;
    AnswerReader::Piece piece_;
    AnswerHead head_;
    std::string refusal_;
    std::optional<boost::asio::steady_timer> waits_;
    bool late_ = false;
    bool told_prompt_ = false;
    bool ended_ = false;
};

}  // namespace stator::engine
