#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/worker_processes.h"
#include "stator/config/settings.h"
#include "stator/control/planner/demand_scrape.h"
#include "stator/planner/options.h"

namespace stator::cli {

/// What is to be managed: a role, and of how many workers there may be. `--planner-workers`'s
/// items, in their order.
[[nodiscard]] std::vector<planner::RoleOptions> read_worker_ranges(
    const std::vector<std::string>& items);

/// The roles of these kinds of processes, each with 1 to `most` workers where the settings name no
/// range. kInvalidArgument: two kinds of one role, a kind that is beside an engine of somebody
/// else's, several workers in one process, a range of a role that no kind has.
[[nodiscard]] Result<std::vector<planner::RoleOptions>> managed_roles(
    const std::vector<WorkerKind>& kinds, const config::Settings& settings, std::size_t most);

/// Everything but the roles; reads the profile's file. An error names the flag.
[[nodiscard]] Result<planner::PlannerOptions> planner_options(
    const config::PlannerSettings& settings);

[[nodiscard]] Result<std::vector<control::DemandScrape::Target>> scrape_targets(
    const config::PlannerSettings& settings);

}  // namespace stator::cli
