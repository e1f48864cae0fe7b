#include "stator/control/planner/supervisor_actuator.h"

#include <algorithm>
#include <set>
#include <utility>

namespace stator::control {

using planner::Action;
using planner::Role;
using planner::WorkerObservation;
using planner::WorkerState;

SupervisorActuator::SupervisorActuator(Supervisor& supervisor, std::vector<WorkerGroup> groups)
    : supervisor_(supervisor), groups_(std::move(groups)) {}

const WorkerGroup* SupervisorActuator::group_of(std::string_view process) const {
    const auto dash = process.rfind('-');
    if (dash == std::string_view::npos) return nullptr;
    const auto found = std::ranges::find(groups_, process.substr(0, dash), &WorkerGroup::name);
    return found == groups_.end() ? nullptr : &*found;
}

Result<void> SupervisorActuator::carry_out(const Action& action) {
    switch (action.kind) {
        case Action::Kind::kStart:
            return start(action.role, action.count);
        case Action::Kind::kDrain:
            return supervisor_.remove(action.worker);
        case Action::Kind::kMove:
            if (auto removed = supervisor_.remove(action.worker); !removed) return removed;
            return start(action.to, 1);
    }
    return error(ErrorCode::kUnsupported, "the supervisor knows no such order");
}

Result<void> SupervisorActuator::start(Role role, std::uint32_t count) {
    const auto group = std::ranges::find(groups_, role, &WorkerGroup::role);
    if (group == groups_.end()) {
        return error(ErrorCode::kNotFound, "no worker process of role {} is configured here",
                     to_string(role));
    }
    std::set<std::string> taken;
    for (ChildStatus& status : supervisor_.status()) taken.insert(std::move(status.name));
    std::uint32_t index = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        ChildSpec child = group->child(index++);
        while (taken.contains(child.name)) child = group->child(index++);
        if (auto added = supervisor_.add(std::move(child)); !added) return added;
    }
    return {};
}

std::vector<WorkerObservation> SupervisorActuator::known() const {
    std::vector<WorkerObservation> out;
    for (ChildStatus& status : supervisor_.status()) {
        const WorkerGroup* group = group_of(status.name);
        if (group == nullptr) continue;
        WorkerObservation& worker = out.emplace_back();
        worker.name = std::move(status.name);
        worker.role = group->role;
        const bool leaves =
            status.state == ChildState::kStopping || status.state == ChildState::kStopped;
        worker.state = leaves ? WorkerState::kDraining : WorkerState::kStarting;
    }
    return out;
}

}  // namespace stator::control
