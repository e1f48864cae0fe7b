#include "stator/sim/fleet.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace stator::sim {

using protocol::Role;

Fleet::Fleet(const Scenario& scenario, std::uint64_t seed)
    : scenario_(scenario), seed_(seed), random_(seed * 2'654'435'761U + 7) {
    for (std::size_t g = 0; g < scenario.groups.size(); ++g) {
        for (std::uint32_t i = 0; i < scenario.groups[g].workers; ++i) {
            SimWorker& w = workers_[make(g)];
            w.up = w.was_up = true;
        }
    }
}

std::uint32_t Fleet::make(std::size_t group) {
    const auto index = static_cast<std::uint32_t>(workers_.size());
    const Group& g = scenario_.groups[group];
    engine::mock::CoreOptions options = g.core;
    options.seed = seed_ * 1'000'003 + index;
    SimWorker& w = workers_.emplace_back();
    w.core = std::make_unique<engine::mock::Core>(std::move(options));
    w.faults = engine::mock::FaultPlan(scenario_.faults, index);
    w.group = static_cast<std::uint32_t>(group);
    w.speed = g.speed;
    if (g.speed_noise > 0) {
        w.speed *= std::exp(std::normal_distribution<double>(0, g.speed_noise)(random_));
    }
    for (const Role role : {Role::kAggregated, Role::kPrefill, Role::kDecode, Role::kEncode}) {
        if (g.roles.has(role)) by_role_[std::to_underlying(role)].push_back(index);
    }
    return index;
}

bool Fleet::has(Role role) const { return scenario_.has(role); }

std::uint32_t Fleet::up(std::size_t group) const {
    return static_cast<std::uint32_t>(std::ranges::count_if(
        workers_, [&](const SimWorker& w) { return w.up && w.group == group; }));
}

bool Fleet::anybody_up(Role role) const {
    const std::uint8_t takers = router::Roles::takers(role);
    return std::ranges::any_of(workers_, [&](const SimWorker& w) {
        return w.up && (scenario_.groups[w.group].roles.bits() & takers) != 0;
    });
}

std::vector<std::uint32_t> Fleet::resize(std::size_t group, std::uint32_t workers) {
    std::vector<std::uint32_t> made;
    std::uint32_t there = up(group);
    for (; there < workers; ++there) made.push_back(make(group));
    for (std::size_t i = workers_.size(); i-- > 0 && there > workers;) {
        SimWorker& w = workers_[i];
        if (!w.up || w.group != group) continue;
        w.up = false;
        w.draining = true;
        --there;
    }
    return made;
}

std::uint32_t Fleet::start(std::size_t group) {
    // Faults are of places, so that each worker has its own where there are any.
    for (std::uint32_t i = 0; i < size() && scenario_.faults.empty(); ++i) {
        SimWorker& w = workers_[i];
        if (!w.ended || w.group != group) continue;
        ++w.life;
        w.draining = w.ended = w.was_up = false;
        return i;
    }
    return make(group);
}

void Fleet::drain(std::uint32_t worker) {
    workers_[worker].up = false;
    workers_[worker].draining = true;
}

}  // namespace stator::sim
