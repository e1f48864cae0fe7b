#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "stator/engine/dialects/kv_connector.h"
#include "stator/engine/http/call_host.h"

namespace stator::engine {

/// A prompt that is computed for another engine. On the engine's loop, but for the constructor.
///
/// Prompt first: its one answer has the object that the other engine needs. Early: the object is
/// minted and the leg ends at once, while its call goes on until the other engine has fetched the
/// KV; a failure from there on is the other engine's to find, which waits no longer than for a
/// while, and cancelling its request releases this one.
class PrefillLeg final : public net::HttpCallHandler,
                         public ActiveCall,
                         public std::enable_shared_from_this<PrefillLeg> {
  public:
    /// `object`: minted, of an early connector; else empty. `deadline`: the call's. `lease`: how
    /// long after its end the engine keeps what nobody has fetched.
    PrefillLeg(CallHost& host, const protocol::GenerateRequest& request, KvConnector connector,
               std::string layout, std::string object, Deadline deadline,
               std::chrono::milliseconds lease, std::shared_ptr<StepSink> sink);

    /// The call is on its way.
    void started();
    [[nodiscard]] const protocol::HandoffId& handoff_id() const { return handoff_->id; }

    void on_head(const net::HttpResponseHead& head) override { head_ = answer_head(head); }
    void on_body(std::string_view piece, TimePoint at) override;
    void on_end(const net::HttpFailure* failure, TimePoint at) override;

  private:
    [[nodiscard]] Result<PrefillAnswer> outcome(const net::HttpFailure* failure);
    /// nullopt: the engine has not said so.
    void hand_off(std::optional<std::uint32_t> cached_tokens);
    void end(protocol::StepEvent event);

    CallHost& host_;
    const std::shared_ptr<StepSink> sink_;
    const KvConnector connector_;
    const std::chrono::milliseconds lease_;
    const std::size_t prompt_;     ///< tokens
    const std::uint32_t resumed_;  ///< … of which are output
    const Deadline deadline_;
    std::shared_ptr<protocol::Handoff> handoff_;  ///< shared with nobody before it is handed off
    AnswerHead head_;
    std::string answer_;
    bool handed_ = false;
};

}  // namespace stator::engine
