#pragma once

#include <memory>
#include <random>
#include <span>
#include <vector>

#include "stator/planner/planner.h"
#include "stator/report/collector.h"
#include "stator/sim/fleet.h"
#include "stator/sim/scenario.h"
#include "stator/workload/request_spec.h"

namespace stator::sim {

/// The planner of a simulated fleet: the one of real fleets. Here is what it is told, what became
/// of it in the report, and how long workers were there. Not thread-safe.
class Planning {
  public:
    Planning(const Scenario& scenario, Fleet& fleet, std::uint64_t seed);

    void offered(const workload::RequestSpec& spec);
    void first_token(double ttft_s, std::uint64_t prompt_tokens, std::uint64_t cached_tokens);
    /// `gap_s`: mean time between its tokens; negative: it had one at most.
    void ended(const report::RequestRecord& record, double gap_s);

    /// `queued`: requests that wait at the router.
    [[nodiscard]] const planner::Decision& tick(Nanos now, double queued);
    [[nodiscard]] std::size_t group_of(planner::Role role) const;
    /// The worker's place by its name in the last tick's decision; none: it is gone.
    [[nodiscard]] std::optional<std::uint32_t> place_of(std::string_view name) const;
    [[nodiscard]] Nanos start_up();
    /// The last tick's decision, into the report's series and remarks.
    void note(report::Collector& into, Nanos now) const;

    [[nodiscard]] const planner::Planner& planner() const { return *planner_; }
    [[nodiscard]] Nanos interval() const;
    /// Of the ticks so far, processor time left out: how many.
    [[nodiscard]] std::uint64_t ticks() const { return planner_->totals().ticks; }

  private:
    [[nodiscard]] static std::string name_of(const Scenario& scenario, const SimWorker& worker,
                                             std::uint32_t place);
    void count(planner::LatencyWindow& window, double seconds, double limit, double weight);

    const Scenario& scenario_;
    Fleet& fleet_;
    std::unique_ptr<planner::Planner> planner_;
    std::mt19937_64 random_;
    planner::DemandWindow window_;
    std::vector<double> ttfts_;  ///< of the window
    std::vector<double> gaps_;
    Nanos last_{0};
};

}  // namespace stator::sim
