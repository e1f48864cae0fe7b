#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/http_door.h"
#include "stator/cli/worker_processes.h"
#include "stator/config/settings.h"
#include "stator/control/planner/demand_scrape.h"
#include "stator/control/planner/planner_service.h"
#include "stator/control/supervisor.h"
#include "stator/metrics/registry.h"

namespace stator::cli {

/// Where a planner will be asked, from before the door listens: GET /planner, /health. Thread-safe.
class PlannerWindow {
  public:
    /// Null: it has gone.
    void show(std::shared_ptr<const control::PlannerService> service);
    [[nodiscard]] Result<std::string> ask(std::string_view target) const;
    [[nodiscard]] std::vector<std::string> concerns() const;

  private:
    [[nodiscard]] std::shared_ptr<const control::PlannerService> service() const;
    mutable std::mutex mutex_;
    std::shared_ptr<const control::PlannerService> service_;
};

/// The planner inside `stator serve`: sizes the worker processes of this server's supervisor.
class PlannerFront {
  public:
    /// What is wrong in the settings, before anything runs. `kinds`: what the supervisor runs.
    [[nodiscard]] static Result<planner::PlannerOptions> check(
        const config::Settings& settings, const std::vector<WorkerKind>& kinds);

    /// All that is handed in must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<PlannerFront>> start(
        planner::PlannerOptions options, const config::Settings& settings,
        const WorkerCommands& commands, control::Supervisor& supervisor, FleetFront& front,
        HttpDoor& door, PlannerWindow& window, metrics::Registry& registry);
    ~PlannerFront();  ///< stops
    void stop();

  private:
    PlannerFront() = default;
    PlannerWindow* window_ = nullptr;
    control::DemandFeed feed_;
    std::unique_ptr<control::DemandScrape> scrape_;
    std::unique_ptr<control::FleetWatch> watch_;
    std::shared_ptr<control::PlannerService> service_;
};

}  // namespace stator::cli
