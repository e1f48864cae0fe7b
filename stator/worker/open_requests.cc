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

bool ArrivingRequests::enter(std::uint32_t rank, const protocol::LoadReport& load) {
    const std::scoped_lock lock(mutex_);
    if (rank >= by_rank_.size()) by_rank_.resize(rank + std::size_t{1});
    const std::size_t room = std::size_t{load.running_limit} + load.waiting_limit;
    // An engine that states no limits refuses by itself.
    if (room > 0 && std::size_t{load.running} + load.waiting + by_rank_[rank] >= room) return false;
    ++by_rank_[rank];
    return true;
}

void ArrivingRequests::leave(std::uint32_t rank) {
    const std::scoped_lock lock(mutex_);
    STATOR_CHECK(rank < by_rank_.size() && by_rank_[rank] > 0, "who leaves has entered");
    --by_rank_[rank];
}

std::size_t ArrivingRequests::count(std::uint32_t rank) const {
    const std::scoped_lock lock(mutex_);
    return rank < by_rank_.size() ? by_rank_[rank] : 0;
}

}  // namespace stator::worker
