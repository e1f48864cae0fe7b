#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "stator/base/clock.h"
#include "stator/protocol/handoff.h"

namespace stator::worker {

/// The handoffs that one link's legs have ended with, as long as nobody else may know of them: a
/// client that cancels before it has heard, or whose link is lost, will have nobody claim them. To
/// release one that was claimed after all does nothing. Keeps the youngest kMost that have not
/// expired. Not thread-safe.
class HandedOff {
  public:
    static constexpr std::size_t kMost = 1024;

    void add(std::uint32_t stream, std::shared_ptr<const protocol::Handoff> what, TimePoint now);
    /// Null: not here.
    [[nodiscard]] std::shared_ptr<const protocol::Handoff> take(std::uint32_t stream);
    [[nodiscard]] std::vector<std::shared_ptr<const protocol::Handoff>> take_all(TimePoint now);

  private:
    struct Entry {
        std::uint32_t stream = 0;
        std::shared_ptr<const protocol::Handoff> what;
    };
    std::deque<Entry> entries_;  // oldest first
};

}  // namespace stator::worker
