#pragma once

#include <memory>
#include <utility>

#include "stator/engine/engine.h"
#include "stator/runtime/mailbox.h"

namespace stator::engine {

/// Brings what an engine's thread delivers to one loop: a step wakes it once, whatever it brought.
class MailboxSink final : public StepSink {
  public:
    using Mailbox = runtime::Mailbox<protocol::StepBatch>;

    explicit MailboxSink(std::shared_ptr<Mailbox> mailbox) : mailbox_(std::move(mailbox)) {}
    void on_step(protocol::StepBatch&& batch) override { mailbox_->push(std::move(batch)); }

  private:
    std::shared_ptr<Mailbox> mailbox_;
};

}  // namespace stator::engine
