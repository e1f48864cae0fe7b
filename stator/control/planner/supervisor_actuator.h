#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/control/planner/actuator.h"
#include "stator/control/supervisor.h"

namespace stator::control {

/// Processes of one role that a supervisor may have more or fewer of.
struct WorkerGroup {
    planner::Role role = planner::Role::kAggregated;
    std::string name;                               ///< "worker"; the processes are worker-0, …
    std::function<ChildSpec(std::uint32_t)> child;  ///< number i, named `name`-i
};

/// Starts and ends processes of this machine. A worker is called by its process's name; to move it
/// is to end it and to start one of the other role.
class SupervisorActuator final : public Actuator {
  public:
    /// The supervisor must outlive it. Each role at most once.
    SupervisorActuator(Supervisor& supervisor, std::vector<WorkerGroup> groups);

    [[nodiscard]] std::string_view name() const override { return "the supervisor"; }
    /// kNotFound: no such role or process. Else what the supervisor says.
    [[nodiscard]] Result<void> carry_out(const planner::Action& action) override;
    /// All processes of its groups. A process that serves may still not be a ready worker.
    [[nodiscard]] std::vector<planner::WorkerObservation> known() const override;

  private:
    [[nodiscard]] Result<void> start(planner::Role role, std::uint32_t count);
    [[nodiscard]] const WorkerGroup* group_of(std::string_view process) const;

    Supervisor& supervisor_;
    const std::vector<WorkerGroup> groups_;
};

}  // namespace stator::control
