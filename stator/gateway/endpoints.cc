#include "stator/gateway/endpoints.h"

#include <fmt/format.h>

#include <algorithm>

namespace stator::gateway {
namespace {

std::string endpoint_of(const protocol::WorkerInfo& info, const net::SocketAddress& address,
                        std::uint16_t target_port) {
    const auto label = info.labels.find(std::string(kHttpLabel));
    if (label != info.labels.end()) return label->second;
    if (target_port == 0 || address.kind != net::SocketAddress::Kind::kTcp) return "";
    if (address.host.contains(':')) return fmt::format("[{}]:{}", address.host, target_port);
    return fmt::format("{}:{}", address.host, target_port);
}

/// Whether whole requests may go to it.
bool answers(const protocol::WorkerInfo& info) {
    const auto has = [&](protocol::Role role) {
        return std::ranges::find(info.roles, role) != info.roles.end();
    };
    return !info.decode_only && (has(protocol::Role::kAggregated) || has(protocol::Role::kDecode));
}

}  // namespace

Endpoints::Endpoints(const fleet::FleetView& view, std::uint16_t target_port) {
    for (const fleet::WorkerView& seen : view.workers) {
        if (!seen.worker || !seen.info) continue;
        std::string endpoint = endpoint_of(*seen.info, seen.address, target_port);
        if (!endpoint.empty()) by_worker_.emplace(seen.worker->id(), std::move(endpoint));
    }
    for (const fleet::PoolView& pool : view.pools) {
        for (const auto& worker : pool.ready) {
            if (!answers(*worker->info())) continue;
            const std::string& endpoint = of(*worker);
            if (endpoint.empty()) {
                complete_ = false;
            } else {
                ready_.push_back({worker, endpoint, pool.id});
            }
        }
    }
}

const std::string& Endpoints::of(const fleet::Worker& worker) const {
    static const std::string kNone;
    const auto at = by_worker_.find(worker.id());
    return at == by_worker_.end() ? kNone : at->second;
}

}  // namespace stator::gateway
