#pragma once

#include <chrono>
#include <cstdint>
#include <queue>
#include <vector>

namespace stator::sim {

/// What happens next on virtual time: events by time, those of one moment in the order in which
/// they were added, so that a run is the same each time.
template <typename Event>
class EventQueue {
  public:
    using Nanos = std::chrono::nanoseconds;

    void add(Nanos at, Event event) { heap_.push({at, order_++, event}); }
    [[nodiscard]] bool empty() const { return heap_.empty(); }
    [[nodiscard]] Nanos next_time() const { return heap_.top().at; }
    Event take() {
        Event event = heap_.top().event;
        heap_.pop();
        return event;
    }

  private:
    struct Entry {
        Nanos at;
        std::uint64_t order;
        Event event;
        bool operator>(const Entry& other) const {
            return at != other.at ? at > other.at : order > other.order;
        }
    };
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap_;
    std::uint64_t order_ = 0;
};

}  // namespace stator::sim
