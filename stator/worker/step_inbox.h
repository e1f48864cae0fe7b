#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "stator/engine/engine.h"
#include "stator/runtime/loop.h"

namespace stator::worker {

/// Brings what engines deliver for one link to the link's loop: however many steps are there, the
/// loop is woken once. After close() it keeps nothing, but releases the handoffs that still come,
/// so that they don't take memory until they expire. Engines hold it, so that it outlives the link.
class StepInbox final : public engine::StepSink, public std::enable_shared_from_this<StepInbox> {
  public:
    using Receive = std::function<void(std::vector<protocol::StepBatch>&&)>;
    using Release = std::function<void(std::shared_ptr<const protocol::Handoff>)>;
    /// `release` is called on any thread.
    StepInbox(runtime::Loop& loop, Release release, Receive receive)
        : loop_(loop), release_(std::move(release)), receive_(std::move(receive)) {}

    void on_step(protocol::StepBatch&& batch) override;
    /// `receive` is not called any more. On the loop.
    void close();

  private:
    void drain();
    void release(const std::vector<protocol::StepBatch>& batches) const;

    runtime::Loop& loop_;  // not touched after close()
    Release release_;
    Receive receive_;
    std::mutex mutex_;
    std::vector<protocol::StepBatch> batches_;
    bool scheduled_ = false;
    bool closed_ = false;
};

}  // namespace stator::worker
