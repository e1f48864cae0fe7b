#include <algorithm>
#include <string>

#include "stator/frontend/pools/pool_models.h"
#include "stator/frontend/pools/pool_roles.h"
#include "stator/net/socket_address.h"

namespace stator::frontend {
namespace {

void append_load(codec::JsonWriter& w, const fleet::Worker& worker,
                 const protocol::WorkerInfo& info) {
    w.key("ranks").begin_array();
    for (const protocol::RankInfo& rank : info.ranks) {
        const protocol::LoadReport load = worker.load(rank.rank);
        w.begin_object().key("rank").number(rank.rank);
        w.key("running").number(load.running).key("waiting").number(load.waiting);
        w.key("running_limit").number(load.running_limit);
        w.key("waiting_limit").number(load.waiting_limit);
        w.key("kv_used_tokens").number(load.kv_used_tokens);
        w.key("kv_cached_tokens").number(load.kv_cached_tokens);
        w.key("kv_total_tokens").number(load.kv_total_tokens);
        if (load.unclaimed_limit > 0) {
            w.key("unclaimed_handoffs").number(load.unclaimed_handoffs);
            w.key("unclaimed_bytes").number(load.unclaimed_bytes);
        }
        w.end_object();
    }
    w.end_array();
}

void append_worker(codec::JsonWriter& w, const fleet::WorkerView& view) {
    w.begin_object().key("address").string(net::to_string(view.address));
    w.key("state").string(to_string(view.state)).key("reason").string(view.reason);
    if (view.info) {
        const protocol::WorkerInfo& info = *view.info;
        w.key("name")
            .string(info.name)
            .key("incarnation")
            .string(fmt::format("{:016x}", info.incarnation.value));
        w.key("engine").string(info.engine).key("version").string(info.version);
        w.key("roles").begin_array();
        for (const protocol::Role role : roles_of(info)) w.string(to_string(role));
        w.end_array();
        if (!info.transfer_methods.empty()) {
            w.key("transfer_methods").begin_array();
            for (const std::string& method : info.transfer_methods) w.string(method);
            w.end_array();
        }
        w.key("model").string(info.card.name).key("pool").string(view.pool);
        if (info.loading) w.key("ready_in_ms").number(info.ready_in_ms);
        if (!info.labels.empty()) {
            w.key("labels").begin_object();
            for (const auto& [name, value] : info.labels) w.key(name).string(value);
            w.end_object();
        }
        if (view.worker) append_load(w, *view.worker, info);
    }
    w.end_object();
}

void append_pool(codec::JsonWriter& w, const fleet::FleetView& view, const fleet::PoolView& pool,
                 const std::vector<PoolModels::ServedRouter>& routers) {
    w.begin_object().key("id").string(pool.id).key("model").string(pool.card->name);
    w.key("weights").string(pool.card->weights_digest);
    w.key("workers").number(static_cast<std::uint64_t>(pool.workers));
    w.key("ready").number(static_cast<std::uint64_t>(pool.ready.size()));
    w.key("roles").begin_object();
    for (const RoleCount& count : count_roles(view, pool)) {
        w.key(to_string(count.role)).begin_object();
        w.key("workers").number(count.workers).key("ready").number(count.ready);
        w.key("ready_ranks").number(count.ready_ranks).end_object();
    }
    w.end_object();
    const auto served = std::ranges::find(routers, pool.id, &PoolModels::ServedRouter::pool);
    if (served != routers.end()) {
        w.key("disaggregation").string(router::to_string(served->router->disaggregation()));
    }
    if (const std::string why = why_nobody_answers(pool); !why.empty()) {
        w.key("cannot_serve").string(why);
    }
    w.end_object();
}

}  // namespace

void append_fleet_json(codec::JsonWriter& w, const fleet::FleetView& view,
                       const std::vector<PoolModels::ServedRouter>& routers) {
    w.begin_object().key("pools").begin_array();
    for (const fleet::PoolView& pool : view.pools) append_pool(w, view, pool, routers);
    w.end_array().key("workers").begin_array();
    for (const fleet::WorkerView& worker : view.workers) append_worker(w, worker);
    w.end_array().key("failing_sources").begin_object();
    for (const auto& [name, reason] : view.failing_sources) w.key(name).string(reason);
    w.end_object().end_object();
}

}  // namespace stator::frontend
