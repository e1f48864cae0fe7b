#include "stator/worker/step_inbox.h"

#include <utility>

namespace stator::worker {

void StepInbox::on_step(protocol::StepBatch&& batch) {
    std::vector<protocol::StepBatch> late;
    {
        const std::scoped_lock lock(mutex_);
        if (closed_) {
            late.push_back(std::move(batch));
        } else {
            batches_.push_back(std::move(batch));
            // Under the lock: close() must not come between.
            if (std::exchange(scheduled_, true)) return;
            loop_.post([self = shared_from_this()] { self->drain(); });
        }
    }
    release(late);
}

void StepInbox::drain() {
    std::vector<protocol::StepBatch> batches;
    {
        const std::scoped_lock lock(mutex_);
        scheduled_ = false;
        if (closed_) return;
        batches.swap(batches_);
    }
    if (!batches.empty()) receive_(std::move(batches));
}

void StepInbox::close() {
    std::vector<protocol::StepBatch> left;
    {
        const std::scoped_lock lock(mutex_);
        closed_ = true;
        left.swap(batches_);
    }
    release(left);
}

void StepInbox::release(const std::vector<protocol::StepBatch>& batches) const {
    for (const protocol::StepBatch& batch : batches) {
        for (const protocol::StepEvent& event : batch.events) {
            if (event.handoff) release_(event.handoff);
        }
    }
}

}  // namespace stator::worker
