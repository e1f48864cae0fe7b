#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "stator/report/report.h"
#include "stator/sim/scenario.h"
#include "stator/workload/request_spec.h"

namespace stator::sim {

/// Where a run is, for a line of progress.
struct Progress {
    double seconds = 0;  ///< virtual
    std::uint64_t started = 0;
    std::uint64_t ended = 0;
    std::uint64_t events = 0;
};

struct RunOptions {
    std::uint64_t seed = 1;
    /// Asked now and then; false stops the run, whose report is then partial. May be empty.
    std::function<bool(const Progress&)> go_on;
};

/// Runs a scenario on virtual time: the same workers' cores, choice of worker and reports as with
/// real traffic, no sockets, no waiting. The same scenario, workload and seed give an identical
/// report, on the same build and kind of CPU. Memory grows with the blocks that workers hold and
/// with the requests under way, not with those that have ended.
[[nodiscard]] report::Report run_scenario(const Scenario& scenario, workload::Workload& workload,
                                          const RunOptions& options);

}  // namespace stator::sim
