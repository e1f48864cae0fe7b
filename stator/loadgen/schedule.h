#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "stator/workload/request_spec.h"

namespace stator::loadgen {

struct ScheduleOptions {
    /// Requests that run at once. Open loop: more than are ever wanted, a bound for the memory;
    /// where it is reached, requests start late, which their records show. Closed loop: the
    /// concurrency.
    std::size_t most_at_once = 1;
    bool closed = false;
};

/// A request and the moment that was fixed for it, since the run's begin.
struct Start {
    workload::RequestSpec spec;
    std::chrono::nanoseconds intended{0};
};

/// Decides which request starts when. No clock, no I/O: it is told the time and what ended. Reads
/// the workload as it goes: one request without `after` ahead, and what follows those that were
/// started.
class Schedule {
  public:
    using Nanoseconds = std::chrono::nanoseconds;

    Schedule(workload::Workload& workload, ScheduleOptions options);

    /// A request that must start now, the longest due first; it runs until ended(). None: nothing
    /// is due, or as many run as may.
    [[nodiscard]] std::optional<Start> take(Nanoseconds now);
    /// When take() gives the next one if nothing ends before. None: only an end can bring one.
    [[nodiscard]] std::optional<Nanoseconds> next_start() const;
    /// A request that take() gave has ended, well or not: what waited for it is due its own time
    /// from now.
    void ended(const workload::RequestSpec& spec, Nanoseconds now);
    /// What is due and was held back for want of room; from then on take() gives nothing more.
    [[nodiscard]] std::vector<Start> stop(Nanoseconds now);

    /// Requests of this session that run or will.
    [[nodiscard]] std::size_t session_requests(std::uint64_t session) const {
        const auto it = sessions_.find(session);
        return it == sessions_.end() ? 0 : it->second;
    }
    /// The next request without `after`, to be prepared before it is due.
    [[nodiscard]] const workload::RequestSpec* ahead() const { return ahead_ ? &*ahead_ : nullptr; }
    [[nodiscard]] std::size_t running() const { return running_; }
    /// Nothing runs and nothing will.
    [[nodiscard]] bool done() const {
        return running_ == 0 && !ahead_ && due_.empty() && waiting_.empty();
    }

  private:
    struct Waiting {
        workload::RequestSpec spec;
        std::size_t needs = 0;  ///< how many have to end before
    };
    void read_ahead(Nanoseconds now);
    void add_follower(workload::RequestSpec spec, Nanoseconds now);
    [[nodiscard]] std::optional<Start> take_due(Nanoseconds now);

    workload::Workload& workload_;
    ScheduleOptions options_;
    std::size_t running_ = 0;
    std::optional<workload::RequestSpec> ahead_;
    std::multimap<Nanoseconds, workload::RequestSpec> due_;  ///< followers whose time is known
    std::list<Waiting> waiting_;                             ///< followers whose time is not
    std::unordered_map<std::uint64_t, std::vector<std::list<Waiting>::iterator>> needed_by_;
    std::unordered_set<std::uint64_t> open_;                   ///< read and not ended
    std::unordered_map<std::uint64_t, std::size_t> sessions_;  ///< how many of open_ are theirs
};

}  // namespace stator::loadgen
