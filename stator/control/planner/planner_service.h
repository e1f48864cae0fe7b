#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/control/planner/actuator.h"
#include "stator/control/planner/demand_feed.h"
#include "stator/control/planner/fleet_watch.h"
#include "stator/control/planner/lease.h"
#include "stator/metrics/registry.h"
#include "stator/planner/planner.h"

namespace stator::control {

struct PlannerServiceOptions {
    planner::PlannerOptions planner;
    std::string model;  ///< to size; empty: the only one that there is
    /// Who may decide while this file is locked; empty: always this process.
    std::string lease_file;
    /// Where the fleet stands. Thread-safe, like all that follow.
    std::function<std::shared_ptr<const fleet::FleetView>()> view;
    /// Called before each tick: tells `feed` what it knows. May block, below a second or two.
    std::vector<std::function<void(DemandFeed& feed, TimePoint now)>> ask_demand;
    /// Requests that wait for a worker; null: not known.
    std::function<double()> queued;
};

/// A planner at work: on a thread of its own it reads demand, loads and what forward passes did,
/// asks the planner every PlannerOptions::interval_s, and has an actuator do what it decides. What
/// it says is thread-safe.
class PlannerService {
  public:
    /// `actuator` null: advisory. All must outlive it, `view`'s fleet too.
    [[nodiscard]] static Result<std::unique_ptr<PlannerService>> start(
        PlannerServiceOptions options, FleetWatch& watch, DemandFeed& feed,
        std::shared_ptr<Actuator> actuator, metrics::Registry& registry,
        const Clock& clock = Clock::real());
    ~PlannerService();  ///< stops
    PlannerService(const PlannerService&) = delete;
    PlannerService& operator=(const PlannerService&) = delete;

    /// What GET of a path answers: "/planner" (options, totals, the last decision),
    /// "/planner/decisions" with ?limit=N (from the newest, 20 if not said) and &format=text.
    /// kNotFound, kInvalidArgument.
    [[nodiscard]] Result<std::string> show(std::string_view target) const;
    /// What is not as it should be, as sentences.
    [[nodiscard]] std::vector<std::string> concerns() const;
    /// Ends the thread; a tick under way ends first.
    void stop();

  private:
    PlannerService(PlannerServiceOptions options, std::unique_ptr<planner::Planner> planner,
                   FleetWatch& watch, DemandFeed& feed, std::shared_ptr<Actuator> actuator,
                   metrics::Registry& registry, const Clock& clock);
    void run();
    void tick();
    [[nodiscard]] std::optional<std::string> model_of(
        const std::vector<WorkerSample>& workers) const;
    [[nodiscard]] planner::Observation observe(const std::string& model,
                                               const std::vector<WorkerSample>& workers,
                                               TimePoint now);
    void carry_out(const std::vector<planner::Action>& actions);
    void show_in_metrics(const planner::Decision& decision);
    void set_gauge(std::string_view name, std::string_view help, metrics::Labels labels, double v);

    const PlannerServiceOptions options_;
    const std::unique_ptr<planner::Planner> planner_;  ///< with mutex_
    FleetWatch& watch_;
    DemandFeed& feed_;
    const std::shared_ptr<Actuator> actuator_;
    metrics::Registry& registry_;
    const Clock& clock_;
    FileLease lease_;

    mutable std::mutex mutex_;
    std::condition_variable stopping_changed_;
    bool stopping_ = false;
    std::string waits_for_;  ///< why nothing is decided; empty: it is
    TimePoint last_tick_;
    planner::Planner::Totals shown_;
    std::thread thread_;
};

}  // namespace stator::control
