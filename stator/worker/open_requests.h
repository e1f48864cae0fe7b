#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "stator/base/clock.h"
#include "stator/protocol/load.h"

namespace stator::worker {

/// Counts the requests in work over all links, and is the gate that a drain closes: after close()
/// nobody enters, and what is inside can be waited for. Thread-safe.
class OpenRequests {
  public:
    /// False, and nothing is counted, once the gate is closed.
    [[nodiscard]] bool enter();
    void leave(std::size_t n = 1);
    void close();
    /// True once nobody is inside; false where the deadline came first.
    [[nodiscard]] bool wait_empty(Deadline deadline, const Clock& clock);
    [[nodiscard]] std::size_t count() const;

  private:
    mutable std::mutex mutex_;
    std::condition_variable empty_;
    std::size_t inside_ = 0;
    bool closed_ = false;
};

/// Counts, by rank and over all links, the requests that wait for their handoffs: no more of them
/// than the engine would take. Thread-safe.
class ArrivingRequests {
  public:
    /// False, and nothing is counted, where the engine would be full once all of them are there.
    [[nodiscard]] bool enter(std::uint32_t rank, const protocol::LoadReport& load);
    void leave(std::uint32_t rank);
    [[nodiscard]] std::size_t count(std::uint32_t rank) const;

  private:
    mutable std::mutex mutex_;
    std::vector<std::size_t> by_rank_;
};

}  // namespace stator::worker
