#include "stator/sim/fleet.h"

#include <algorithm>
#include <utility>

#include "stator/router/rank_choice.h"

namespace stator::sim {

using protocol::Role;

Fleet::Fleet(const Scenario& scenario, std::uint64_t seed)
    : scenario_(scenario),
      seed_(seed),
      random_(static_cast<std::minstd_rand::result_type>(seed * 2'654'435'761U + 7)) {
    for (std::size_t g = 0; g < scenario.groups.size(); ++g) {
        for (std::uint32_t i = 0; i < scenario.groups[g].workers; ++i) workers_[make(g)].up = true;
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
    loads_.push_back(w.core->load());
    by_role_[std::to_underlying(g.role)].push_back(index);
    return index;
}

bool Fleet::has(Role role) const {
    return std::ranges::any_of(scenario_.groups, [&](const Group& g) { return g.role == role; });
}

std::uint32_t Fleet::up(std::size_t group) const {
    return static_cast<std::uint32_t>(std::ranges::count_if(
        workers_, [&](const SimWorker& w) { return w.up && w.group == group; }));
}

bool Fleet::anybody_up(Role role) const {
    return std::ranges::any_of(by_role_[std::to_underlying(role)],
                               [&](std::uint32_t w) { return workers_[w].up; });
}

std::uint32_t Fleet::choose(Role role) {
    const std::vector<std::uint32_t>& all = by_role_[std::to_underlying(role)];
    if (all.empty()) return kNobody;
    const auto open = [&](std::uint32_t w) {
        const protocol::LoadReport& l = loads_[w];
        return workers_[w].up && std::uint64_t{l.running} + l.waiting <
                                     std::uint64_t{l.running_limit} + l.waiting_limit;
    };
    if (scenario_.policy == RoutePolicy::kLeastLoaded) {
        router::RankChoice choice(random_);
        for (const std::uint32_t w : all) {
            if (workers_[w].up) choice.consider(w, loads_[w], 0, 0);
        }
        return choice.best() ? static_cast<std::uint32_t>(*choice.best()) : kNobody;
    }
    std::size_t& turn = turn_[std::to_underlying(role)];
    if (scenario_.policy == RoutePolicy::kRandom) turn = random_();
    for (std::size_t i = 0; i < all.size(); ++i) {
        const std::uint32_t w = all[turn++ % all.size()];
        if (open(w)) return w;
    }
    return kNobody;
}

std::vector<std::uint32_t> Fleet::resize(std::size_t group, std::uint32_t workers) {
    std::vector<std::uint32_t> made;
    std::uint32_t there = up(group);
    for (; there < workers; ++there) made.push_back(make(group));
    for (std::size_t i = workers_.size(); i-- > 0 && there > workers;) {
        SimWorker& w = workers_[i];
        if (!w.up || w.group != group) continue;
        w.up = false;
        --there;
    }
    return made;
}

}  // namespace stator::sim
