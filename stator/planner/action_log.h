#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "stator/planner/decision.h"
#include "stator/planner/observation.h"
#include "stator/planner/options.h"

namespace stator::planner {

/// Follows orders until the workers that are seen show their effect, or until it is too late; then
/// waits, longer each time, before there may be another of its kind. What actuators say of
/// themselves counts only where it is a refusal. Times are the planner's own, seconds that only go
/// forward. Bounded by the number of workers and kMostOpen.
class ActionLog {
  public:
    static constexpr std::size_t kMostOpen = 4096;

    explicit ActionLog(const PlannerOptions& options) : options_(options) {}

    /// Takes over who is there now; appends to `notes` what took effect and what did not.
    void observe(const std::vector<WorkerObservation>& workers, double now_s, double start_up_s,
                 std::vector<std::string>& notes);
    void add(const Action& action, double now_s);
    /// False: there is no such open order.
    bool refuse(std::uint64_t id, double now_s);

    /// Ordered and not seen yet.
    [[nodiscard]] std::uint32_t ordered(Role role) const;
    /// Has been starting for far too long.
    [[nodiscard]] bool stuck(std::string_view worker) const;
    /// Seconds until there may be an order that adds; 0: now.
    [[nodiscard]] double up_blocked_s(Role role, double now_s) const;
    /// Whether this worker did not go when it was told to, lately, or is being told.
    [[nodiscard]] bool avoid(std::string_view worker, double now_s) const;
    [[nodiscard]] bool any_open() const { return !open_.empty(); }
    /// How long workers took to be ready, those that became it since the last call.
    [[nodiscard]] std::vector<double> take_start_ups();
    [[nodiscard]] std::uint64_t without_effect() const { return without_effect_; }
    /// What is wrong now, as sentences.
    [[nodiscard]] std::vector<std::string> troubles(double now_s) const;

  private:
    struct Backoff {
        double until_s = 0;
        double next_s = 0;  ///< how long the next one will be; 0 = as configured
    };
    struct Known {
        Role role = Role::kAggregated;
        WorkerState state = WorkerState::kReady;
        double since_s = 0;  ///< in this state
        double first_s = 0;
        bool seen = false;  ///< in this observation
        bool stuck = false;
        bool told_long = false;  ///< that it drains too long
        double avoid_until_s = -1;
        std::uint64_t start = 0;  ///< the order it is taken to follow from
    };
    struct Open {
        Action action;
        double deadline_s = 0;
        std::uint32_t unseen = 0;  ///< kStart
    };

    void appeared(Known& known);
    void back_off(Role role, double now_s);
    void settle(double now_s, std::vector<std::string>& notes);

    const PlannerOptions& options_;
    std::map<std::string, Known, std::less<>> known_;
    std::deque<Open> open_;
    PerRole<Backoff> up_;
    std::vector<double> start_ups_;
    std::uint64_t without_effect_ = 0;
    bool first_ = true;  ///< whoever is there at first was not ordered
};

}  // namespace stator::planner
