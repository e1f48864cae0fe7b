#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/planner/observation.h"
#include "stator/planner/options.h"

namespace stator::planner {

/// What is to be done. An order that has an id is followed until it took effect or its deadline
/// passed; giving the same order again is a new one with another id.
struct Action {
    enum class Kind : std::uint8_t {
        kStart = 1,  ///< `count` more workers of `role`
        kDrain,      ///< `worker` takes no new work, ends what it has, and goes
        kMove,       ///< `worker` leaves `role` for `to`
    };
    std::uint64_t id = 0;  ///< from 1
    Kind kind = Kind::kStart;
    Role role = Role::kAggregated;
    Role to = Role::kAggregated;  ///< kMove only
    std::uint32_t count = 1;      ///< kStart only
    std::string worker;           ///< kDrain, kMove: the victim
    TimePoint deadline;           ///< until then it must have had its effect
    std::string expects;          ///< a sentence: what that is
    std::string because;          ///< kDrain, kMove: why this one
};
[[nodiscard]] std::string_view to_string(Action::Kind kind);

/// What kept the target from being the need.
enum class Bound : std::uint8_t {
    kNone = 1,     ///< nothing: the target is the need
    kMin,          ///< RoleOptions::min, or never to zero
    kMax,          ///< RoleOptions::max
    kBudget,       ///< device_budget
    kCooldown,     ///< up_cooldown_s, down_cooldown_s
    kHysteresis,   ///< down_after_s, deadband
    kBackoff,      ///< orders that had no effect
    kInputs,       ///< not enough is known
    kRate,         ///< most_at_once
    kUnreachable,  ///< the SLO can't be met by more workers; the need is where more stop to help
};
[[nodiscard]] std::string_view to_string(Bound bound);

struct RoleCounts {
    std::uint32_t ready = 0;
    std::uint32_t starting = 0;  ///< seen, and not stuck
    std::uint32_t ordered = 0;   ///< and not seen yet
    std::uint32_t stuck = 0;     ///< start for far too long
    std::uint32_t draining = 0;
    /// That are there or will be.
    [[nodiscard]] std::uint32_t committed() const { return ready + starting + ordered; }
    bool operator==(const RoleCounts&) const = default;
};

/// A forecast of one figure, per second.
struct ForecastView {
    std::string of;        ///< "requests", "prompt tokens", "output tokens", "images"
    double horizon_s = 0;  ///< from now to the window's end
    double actual = 0;     ///< in the last window
    double mean = 0;
    double low = 0;    ///< the 5 % quantile
    double high = 0;   ///< the 95 % quantile
    double sized = 0;  ///< at PlannerOptions::quantile
};

struct RoleDecision {
    Role role = Role::kAggregated;
    RoleCounts counts;
    std::uint32_t need = 0;    ///< workers, before constraints
    std::uint32_t target = 0;  ///< after them
    Bound bound = Bound::kNone;
    std::string because;     ///< a sentence: what the need follows from, what bound
    double utilization = 0;  ///< that the need's workers would have at the sized demand; 0 to 1
    double ttft_miss = 0;    ///< share over the limit, by the model, with `target` workers
    double itl_s = 0;        ///< mean, by the model, with `target` workers
    double margin = 1;       ///< that demand is multiplied with, as missed limits taught
};

/// What was seen, foreseen, wanted and done at one tick.
struct Decision {
    std::uint64_t id = 0;  ///< from 1, one each tick
    TimePoint at;
    PolicyKind policy = PolicyKind::kPlanned;
    bool advisory = false;
    std::optional<DemandWindow> demand;  ///< none: was not seen
    double cached_ratio = 0;
    double isl = 0;
    double osl = 0;
    std::vector<ForecastView> forecasts;  ///< of each figure: next window, then start-up's horizon
    std::vector<RoleDecision> roles;
    std::vector<Action> actions;
    std::vector<std::string> notes;     ///< what took effect, what did not, what contradicts
    std::vector<std::string> degraded;  ///< what is wrong now; empty: nothing
};

/// As JSON, one object; `now` and `unix_now_s` place `at` on the calendar (seconds since 1970).
void write_json(std::string& out, const Decision& decision, TimePoint now, double unix_now_s);
/// As text for people, several lines: `stator planner explain`.
[[nodiscard]] std::string explain(const Decision& decision, TimePoint now);
/// One line: what was done and why; for a log.
[[nodiscard]] std::string headline(const Decision& decision);

}  // namespace stator::planner
