#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/protocol/demand.h"

namespace stator::control {

/// Adds up what frontends were asked for, from the totals that each of them tells, and gives it
/// out window by window. What a frontend says first is its starting point: it may be old. One that
/// says less than before has begun anew. Thread-safe; at most kMaxSources frontends.
class DemandFeed {
  public:
    static constexpr std::size_t kMaxSources = 1024;

    /// `source`: a life of a frontend. `known_from_start`: its first totals count from 0.
    void tell(std::uint64_t source, std::vector<protocol::DemandTotals> totals, TimePoint now,
              bool known_from_start = false);
    /// By model, what was asked for since the last call. Sources that have said nothing since
    /// `forget` are dropped.
    [[nodiscard]] std::map<std::string, protocol::DemandTotals> take(TimePoint forget);
    /// When a source was heard last; the clock's beginning where none ever was.
    [[nodiscard]] TimePoint heard_at() const;

  private:
    struct Source {
        std::map<std::string, protocol::DemandTotals> last;  ///< told
        TimePoint at;
        bool begun = false;
    };
    mutable std::mutex mutex_;
    std::map<std::uint64_t, Source> sources_;
    std::map<std::string, protocol::DemandTotals> window_;
    TimePoint heard_at_;
};

/// What came between two totals of one source; `after` alone where it is less than `before`.
[[nodiscard]] protocol::DemandTotals difference(const protocol::DemandTotals& before,
                                                const protocol::DemandTotals& after);
/// `to` and `more` together; durations of other bounds than `to` has are left out.
void add(protocol::DemandTotals& to, const protocol::DemandTotals& more);

}  // namespace stator::control
