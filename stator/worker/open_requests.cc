#include "stator/worker/open_requests.h"

#include "stator/base/check.h"

namespace stator::worker {

bool OpenRequests::enter() {
    const std::scoped_lock lock(mutex_);
    if (closed_) return false;
    ++inside_;
    return true;
}

void OpenRequests::leave(std::size_t n) {
    const std::scoped_lock lock(mutex_);
    STATOR_CHECK(n <= inside_, "who leaves has entered");
    inside_ -= n;
    if (inside_ == 0) empty_.notify_all();
}

void OpenRequests::close() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
}

bool OpenRequests::wait_empty(Deadline deadline, const Clock& clock) {
    std::unique_lock lock(mutex_);
    const auto is_empty = [this] { return inside_ == 0; };
    if (!deadline.is_never()) return empty_.wait_for(lock, deadline.left(clock.now()), is_empty);
    empty_.wait(lock, is_empty);
    return true;
}

std::size_t OpenRequests::count() const {
    const std::scoped_lock lock(mutex_);
    return inside_;
}

}  // namespace stator::worker
