#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "stator/report/distribution.h"
#include "stator/report/report.h"

namespace stator::report {

/// What happened when, in at most Report::kMaxIntervals intervals: they begin a quarter of a second
/// long, and pairs of them become one whenever the run outgrows them. Times are finite and counted
/// since the run's begin; those before it fall into the first interval. Not thread-safe.
class TimelineRecorder {
  public:
    static constexpr double kFirstInterval = 0.25;

    void offered(double time) { ++at(time).figures.offered; }
    void completed(double time) { ++at(time).figures.completed; }
    void failed(double time) { ++at(time).figures.failed; }
    void ttft(double time, double ms) { at(time).ttft.add(ms); }
    /// A request was under way from `begin` to `end`.
    void under_way(double begin, double end);
    /// `count` tokens, the first at `first`, the others each a gap later, but never after `last`;
    /// those that have no gap came with the one before.
    void tokens(double first, double last, std::span<const float> gaps, std::uint64_t count);

    /// The run's intervals if it ended at `seconds`.
    [[nodiscard]] Timeline finish(double seconds) const;

    struct Recent {
        double seconds = 0;
        std::uint64_t completed = 0;
        std::uint64_t output_tokens = 0;
    };
    /// The sum over the last whole intervals before `now`: some five seconds, or what there is.
    [[nodiscard]] Recent recent(double now) const;

  private:
    struct Cell {
        Interval figures;  // in_flight holds request-seconds
        Distribution ttft{6};
    };
    [[nodiscard]] std::size_t index(double time) const;
    Cell& at(double time);
    void cover(double time);
    void coarsen();

    double width_ = kFirstInterval;
    std::vector<Cell> cells_;
};

}  // namespace stator::report
