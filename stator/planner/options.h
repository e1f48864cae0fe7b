#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/planner/observation.h"
#include "stator/planner/profile.h"

namespace stator::planner {

enum class PolicyKind : std::uint8_t {
    kPlanned = 1,  ///< forecast, model, as many at once as are needed
    kReactive,     ///< one more while every worker is over its limit, one less while all are below
    kStatic,       ///< RoleOptions::initial, always
};
[[nodiscard]] std::string_view to_string(PolicyKind kind);
[[nodiscard]] std::optional<PolicyKind> find_policy(std::string_view name);

/// A role that is managed.
struct RoleOptions {
    Role role = Role::kAggregated;
    std::uint32_t initial = 1;  ///< to have at the begin; kStatic: always
    std::uint32_t min = 1;      ///< 0 only together with PlannerOptions::allow_zero
    std::uint32_t max = 64;
    std::uint32_t devices = 1;  ///< of one worker, against the budget
    bool operator==(const RoleOptions&) const = default;
};

/// The reference's load loop: adjusts by one.
struct ReactiveOptions {
    double ttft_s = 0.5;             ///< its own limit on the estimate, not the SLO
    double itl_s = 0.05;             ///< likewise
    double sensitivity = 0.8;        ///< one less while all are below this share of the limits
    std::uint32_t observations = 5;  ///< of a worker, before anything is decided
    bool waits = true;               ///< does nothing while a worker starts or drains
    bool operator==(const ReactiveOptions&) const = default;
};

struct PlannerOptions {
    PolicyKind policy = PolicyKind::kPlanned;
    std::vector<RoleOptions> roles{RoleOptions{}};  ///< each once
    SloTarget slo;
    double interval_s = 10;   ///< between ticks; a window of the predictors
    double start_up_s = 120;  ///< until a new worker is ready, before that was observed
    std::string predictor = "ewma";
    double quantile = 0.9;            ///< of the forecast, that the fleet is sized for
    double season_s = 86'400;         ///< of the seasonal predictor
    std::uint32_t device_budget = 0;  ///< 0: none
    bool allow_zero = false;          ///< without demand, a role may have no worker
    double zero_after_s = 600;        ///< so long there must have been none
    bool advisory = false;            ///< decides and says so, orders nothing

    double up_cooldown_s = 0;     ///< between two orders that add, for each role
    double down_cooldown_s = 60;  ///< after any order, until one that takes away
    /// One less only if that was enough all this time.
    double down_after_s = 180;
    /// What changes of ±n are not worth: a share of the role's workers, rounded down.
    double deadband = 0.0;
    /// One less only if that would be enough for so much more: against going to and fro.
    double hysteresis = 0.05;
    std::uint32_t most_at_once =
        0;  ///< workers added in a tick, for each role; 0: as many as needed

    double appear_within_s = 30;       ///< after an order something of it must be seen
    double ready_factor = 3;           ///< a worker that needs so many times start_up_s is stuck
    double drain_within_s = 900;       ///< a worker that drains longer is reported
    double backoff_s = 30;             ///< after an order that had no effect; doubling …
    double longest_backoff_s = 1'800;  ///< … up to this
    double stale_after_s = 60;         ///< without demand data: nothing is taken away

    /// How strongly missed and kept limits change the margin: see Margin.
    double margin_gain = 0.1;
    double least_margin = 0.7;
    double most_margin = 3.0;
    ReactiveOptions reactive;
    Profile profile;              ///< may be empty: everything is learned then
    std::size_t decisions = 256;  ///< kept
    std::size_t most_workers = 100'000;
};

/// What can't be: a role twice or none, min above max, a share outside (0, 1), times that are not
/// positive and finite, an unknown predictor.
[[nodiscard]] Result<void> check(const PlannerOptions& options);

}  // namespace stator::planner
