#include "stator/frontend/pools/pool_roles.h"

#include <fmt/format.h>

#include <algorithm>

namespace stator::frontend {

using protocol::Role;

std::vector<Role> roles_of(const protocol::WorkerInfo& info) {
    std::vector<Role> out;
    for (const Role role : kRoles) {
        if (std::ranges::find(info.roles, role) != info.roles.end()) out.push_back(role);
    }
    if (out.empty()) out.push_back(Role::kAggregated);
    return out;
}

bool answers(const protocol::WorkerInfo& info) {
    return std::ranges::any_of(roles_of(info), [](Role role) {
        return role == Role::kAggregated || role == Role::kDecode;
    });
}

std::vector<RoleCount> count_roles(const fleet::FleetView& view, const fleet::PoolView& pool) {
    std::vector<RoleCount> out;
    for (const Role role : kRoles) {
        RoleCount count{.role = role};
        for (const fleet::WorkerView& worker : view.workers) {
            if (!worker.info || worker.pool != pool.id) continue;
            if (worker.state == fleet::MemberState::kGone) continue;
            const auto roles = roles_of(*worker.info);
            if (std::ranges::find(roles, role) == roles.end()) continue;
            ++count.workers;
            if (std::ranges::find(pool.ready, worker.worker) == pool.ready.end()) continue;
            ++count.ready;
            count.ready_ranks += worker.info->ranks.size();
        }
        if (count.workers > 0) out.push_back(count);
    }
    return out;
}

std::string why_nobody_answers(const fleet::PoolView& pool) {
    if (pool.ready.empty()) return {};
    std::vector<std::string_view> there;
    bool decodes = false;
    bool prefills = false;
    for (const auto& worker : pool.ready) {
        const auto info = worker->info();
        if (answers(*info) && !info->decode_only) return {};
        decodes |= answers(*info);
        prefills |= std::ranges::find(info->roles, Role::kPrefill) != info->roles.end();
        for (const Role role : roles_of(*info)) {
            if (std::ranges::find(there, to_string(role)) == there.end()) {
                there.push_back(to_string(role));
            }
        }
    }
    if (decodes && prefills) return {};
    if (decodes) return "no prefill worker is ready: those that decode compute no prompts";
    return fmt::format("no decode worker is ready: those that are only {}", fmt::join(there, ", "));
}

std::vector<std::string> pools_without_answer(const fleet::FleetView& view) {
    std::vector<std::string> out;
    for (const fleet::PoolView& pool : view.pools) {
        const std::string why = why_nobody_answers(pool);
        if (why.empty()) continue;
        out.push_back(
            fmt::format("pool {} of model {} can't serve: {}", pool.id, pool.card->name, why));
    }
    return out;
}

}  // namespace stator::frontend
