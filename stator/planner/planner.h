#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/planner/decision.h"
#include "stator/planner/observation.h"
#include "stator/planner/options.h"

namespace stator::planner {

/// Sizes the workers of one pool. Pure: no clock, no I/O; time comes with each call and may jump.
/// Whoever drives it calls tick() every interval_s, carries the decision's actions out, and says
/// where an actuator refused one; whether an action had its effect is judged by what the next
/// observations show, whatever the actuator says. Bounded memory, not thread-safe.
class Planner {
  public:
    /// kInvalidArgument: see check().
    [[nodiscard]] static Result<std::unique_ptr<Planner>> make(PlannerOptions options);
    ~Planner();
    Planner(const Planner&) = delete;
    Planner& operator=(const Planner&) = delete;

    /// What is to be done now. The decision is kept: valid until the next tick.
    const Decision& tick(const Observation& observation, TimePoint now);

    /// The actuator would not carry it out. Unknown ids are ignored.
    void refused(std::uint64_t action, std::string_view why, TimePoint now);

    /// The last ones, oldest first; at most PlannerOptions::decisions.
    [[nodiscard]] const std::deque<Decision>& decisions() const;
    [[nodiscard]] const PlannerOptions& options() const;

    /// New limits from now on: what is not managed, or can't be, is kInvalidArgument and changes
    /// nothing.
    [[nodiscard]] Result<void> set_bounds(Role role, std::uint32_t min, std::uint32_t max);
    [[nodiscard]] Result<void> set_device_budget(std::uint32_t devices);

    /// For metrics; totals since the start.
    struct Totals {
        std::uint64_t ticks = 0;
        std::uint64_t started = 0;  ///< workers ordered
        std::uint64_t drained = 0;
        std::uint64_t moved = 0;
        std::uint64_t without_effect = 0;  ///< actions whose deadline passed
        std::uint64_t refused = 0;
        std::uint64_t clock_jumps = 0;
        std::uint64_t windows_missed = 0;
        std::uint64_t direction_changes = 0;  ///< from adding to taking away and back
    };
    [[nodiscard]] const Totals& totals() const;
    /// What the model of a role has come to.
    [[nodiscard]] StepCost learned(Role role) const;

  private:
    struct Impl;
    explicit Planner(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::planner
