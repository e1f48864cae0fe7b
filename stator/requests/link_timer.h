#pragma once

#include <boost/asio/steady_timer.hpp>

#include "stator/base/clock.h"
#include "stator/runtime/asio.h"

namespace stator::requests {

/// Wakes a link when its state machine asks for it. Inside the room only. It is set again only
/// where the machine wants to be woken earlier: a busy link moves its deadline on with every byte,
/// and that must cost nothing. Waking early does no harm.
class LinkTimer {
  public:
    LinkTimer(runtime::Loop& loop, const Clock& clock)
        : timer_(runtime::asio_context(loop)), clock_(clock) {}

    /// `owner` is a shared_ptr whose `on_timer()` is called.
    template <typename Owner>
    void want(Deadline deadline, const std::shared_ptr<Owner>& owner) {
        if (deadline.is_never() || armed_ <= deadline) return;
        armed_ = deadline;
        timer_.expires_after(deadline.left(clock_.now()));
        timer_.async_wait([this, weak = std::weak_ptr<Owner>(owner)](const auto& ec) {
            const auto self = weak.lock();
            if (ec || !self) return;
            armed_ = Deadline::never();
            self->on_timer();
        });
    }
    void cancel() {
        timer_.cancel();
        armed_ = Deadline::never();
    }

  private:
    boost::asio::steady_timer timer_;
    const Clock& clock_;
    Deadline armed_;
};

}  // namespace stator::requests
