#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/protocol/demand.h"
#include "stator/protocol/load.h"
#include "stator/protocol/worker_info.h"

namespace stator::planner {

using protocol::Role;

inline constexpr std::array<Role, 4> kRoles{Role::kAggregated, Role::kPrefill, Role::kDecode,
                                            Role::kEncode};
/// A value for each role.
template <typename T>
class PerRole {
  public:
    [[nodiscard]] T& operator[](Role role) { return values_[std::to_underlying(role) - 1U]; }
    [[nodiscard]] const T& operator[](Role role) const {
        return values_[std::to_underlying(role) - 1U];
    }

  private:
    std::array<T, kRoles.size()> values_{};
};

/// What is to be kept: so large a share of the requests has its first token within `ttft_s`, and so
/// large a share a mean time between tokens of at most `itl_s`.
struct SloTarget {
    double ttft_s = 2.0;
    double itl_s = 0.05;
    double share = 0.99;
    bool operator==(const SloTarget&) const = default;
};

/// Durations of a window against their limit.
struct LatencyWindow {
    double count = 0;
    double within = 0;  ///< of `count`; interpolated where the limit is inside a histogram's range
    double mean_s = 0;
    double p50_s = 0;  ///< 0 where nothing was counted
    double p99_s = 0;
    bool operator==(const LatencyWindow&) const = default;
};

/// What a pool was asked for in the window since the last observation: the refused included, what
/// clients sent again not.
struct DemandWindow {
    double seconds = 0;        ///< the window's length
    double offered = 0;        ///< sequences
    double refused = 0;        ///< of them
    double prompt_tokens = 0;  ///< of all offered
    double started_prompt_tokens = 0;
    double cached_tokens = 0;  ///< of started_prompt_tokens
    double media_items = 0;
    double finished = 0;       ///< sequences that ended well
    double output_tokens = 0;  ///< that came in this window, of whatever sequence
    LatencyWindow ttft;
    LatencyWindow itl;
    bool operator==(const DemandWindow&) const = default;
};

/// The window between two readings of a frontend's totals, `seconds` apart. Totals that went back
/// (the frontend has started anew) count from zero.
[[nodiscard]] DemandWindow window_of(const protocol::DemandTotals& before,
                                     const protocol::DemandTotals& after, double seconds,
                                     const SloTarget& slo);
/// Adds what another frontend saw in the same window.
void add(DemandWindow& sum, const DemandWindow& other);

enum class WorkerState : std::uint8_t { kStarting = 1, kReady, kDraining };
[[nodiscard]] std::string_view to_string(WorkerState state);

/// A worker as seen now. One that is gone is simply not there any more.
struct WorkerObservation {
    std::string name;  ///< what actions call it by
    Role role = Role::kAggregated;
    std::vector<Role> can_be;  ///< other roles that it can switch to without starting anew
    WorkerState state = WorkerState::kReady;
    /// None: never told, or too long ago. Of all its ranks together.
    std::optional<protocol::LoadReport> load;
    std::optional<protocol::ForwardPassMetrics> passes;  ///< totals since its start
};

/// What is seen of a pool of one model at one moment. Whatever is missing is left out, not zero.
struct Observation {
    std::optional<DemandWindow> demand;      ///< none: no frontend told anything in this window
    std::optional<double> queued;            ///< requests that wait at the frontends now
    std::vector<WorkerObservation> workers;  ///< each name once; all that there are, in any state
    bool workers_known = true;               ///< false: who is there could not be found out
};

}  // namespace stator::planner
