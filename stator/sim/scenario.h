#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/config/problem.h"
#include "stator/config/yaml_tree.h"
#include "stator/engine/mock/core.h"
#include "stator/engine/mock/faults.h"
#include "stator/planner/options.h"
#include "stator/protocol/worker_info.h"
#include "stator/report/report.h"
#include "stator/router/admission_queue.h"
#include "stator/router/policy.h"
#include "stator/router/route.h"
#include "stator/sim/replicas.h"
#include "stator/workload/options.h"

namespace stator::sim {

using Nanos = std::chrono::nanoseconds;

/// Workers of one kind.
struct Group {
    std::string name = "workers";
    router::Roles roles = protocol::Role::kAggregated;
    protocol::Role role = protocol::Role::kAggregated;  ///< the first one of these
    std::uint32_t workers = 1;
    std::string engine;  ///< the preset's name, or what the step time is, for the report
    engine::mock::CoreOptions core;
    double speed = 1.0;  ///< everything these workers do takes 1 / speed as long
    /// Each worker's own factor on top, for the whole run: log-normal with this standard deviation.
    double speed_noise = 0.0;
};

/// A change of a group's size that was decided beforehand.
struct Resize {
    Nanos at{0};
    std::size_t group = 0;
    std::uint32_t workers = 0;
};

/// A planner that decides while the run is under way. Its roles are the groups', one group each.
struct PlannerScenario {
    planner::PlannerOptions options;
    std::vector<std::size_t> groups;  ///< of options.roles, in their order
    bool profile = true;              ///< it knows step times beforehand
    double start_up_noise = 0;        ///< standard deviation of a start-up's logarithm
};

/// A fleet, what is asked of it, and what goes wrong.
struct Scenario {
    std::string name;
    std::vector<Group> groups;
    router::PolicyOptions router;  ///< expected-ttft unless the file says otherwise
    enum class Sessions : std::uint8_t { kNone, kSoft, kHard };
    Sessions sessions = Sessions::kNone;  ///< are requests of one session kept on one worker?
    /// Set: a request waits at the router while the best worker for it has prompts of more seconds
    /// before it, and is then scored again.
    std::optional<double> hold_s;
    router::AdmissionOptions queue;
    ReplicaOptions replicas;
    Nanos report_every{0};    ///< of a worker's load; 0 = after each step
    Nanos request_delay{0};   ///< from the router to the engine
    Nanos response_delay{0};  ///< and back, for every token and load report
    Nanos events_delay{0};    ///< until a KV event is in the router's index
    std::vector<Resize> resizes;
    Nanos start_up{0};  ///< of a worker that a resize or the planner adds
    std::optional<PlannerScenario> planner;
    workload::WorkloadOptions workload;
    std::string trace_file;
    report::Slo slo;
    std::vector<engine::mock::Fault> faults;
    /// How long a request that has had a worker waits for the next one; then a handoff is given up,
    /// or the request ends.
    Nanos wait_for_worker{std::chrono::seconds(2)};
    Nanos handoff_lease{std::chrono::seconds(30)};  ///< so long a handoff can be taken
    std::uint32_t max_moves = 3;  ///< how often a request may go on after its worker is lost
    double end_after_s = 0.0;     ///< stop the run at this time, ended or not; 0 = never

    [[nodiscard]] std::uint32_t workers() const;
    [[nodiscard]] bool has(protocol::Role role) const;
    /// Whether the router decides for each request if its prompt gets a worker of its own.
    [[nodiscard]] bool splits() const {
        return router.policy == router::Policy::kExpectedTtft && has(protocol::Role::kPrefill) &&
               router.disaggregation != router::Disaggregation::kAlways;
    }
};

/// Sets one value of a scenario's tree, as `--sweep fleet.workers.blocks=…` does: names and list
/// indexes with dots between them; in a list of maps an item may be called by its `name`. Missing
/// maps are made. kInvalidArgument: there is no such place.
[[nodiscard]] Result<void> set_value(config::YamlTree& tree, std::string_view path,
                                     std::string_view text);

/// Reads a scenario (docs/simulator.md describes every field). All problems with their lines, also
/// what can never work: a prompt larger than any worker's cache, a prefill group without a decode
/// group.
[[nodiscard]] tl::expected<Scenario, config::Problems> read_scenario(const config::YamlTree& tree,
                                                                     std::string_view file);

}  // namespace stator::sim
