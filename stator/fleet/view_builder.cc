#include "stator/fleet/view_builder.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"

namespace stator::fleet {

std::shared_ptr<const FleetView> ViewBuilder::build(
    std::vector<WorkerView> workers, std::map<std::string, std::string> failing_sources,
    TimePoint now) {
    auto view = std::make_shared<FleetView>();
    view->version = ++version_;
    view->failing_sources = std::move(failing_sources);
    std::map<std::string, PoolView> present;
    for (WorkerView& w : workers) {
        if (!w.info || w.state == MemberState::kGone) continue;
        w.pool = protocol::pool_id(w.info->card);
        PoolView& pool = present[w.pool];
        ++pool.workers;
        if (w.state == MemberState::kReady) pool.ready.push_back(w.worker);
        auto [known, is_new] = pools_.try_emplace(w.pool);
        if (is_new) {
            known->second.card = std::shared_ptr<const protocol::ModelCard>(w.info, &w.info->card);
            known->second.opened = ++opened_;
            log_info("A pool is opened.",
                     {{"model", w.info->card.name}, {"pool", w.pool}, {"worker", w.info->name}});
        }
    }
    for (auto it = pools_.begin(); it != pools_.end();) {
        auto& [id, pool] = *it;
        if (present.contains(id)) {
            pool.until = Deadline::never();
        } else if (pool.until.is_never()) {
            pool.until = Deadline::after(now, remember_);
        } else if (pool.until.reached(now)) {
            log_info("A pool without workers is forgotten.",
                     {{"model", pool.card->name}, {"pool", id}});
            it = pools_.erase(it);
            continue;
        }
        PoolView& out = present[id];
        out.id = id;
        out.card = pool.card;
        out.opened = pool.opened;
        ++it;
    }
    for (auto& [id, pool] : present) view->pools.push_back(std::move(pool));
    std::ranges::sort(view->pools, {}, &PoolView::opened);
    view->workers = std::move(workers);
    return view;
}

bool ViewBuilder::stale(TimePoint now) const {
    return std::ranges::any_of(pools_, [&](const auto& p) { return p.second.until.reached(now); });
}

}  // namespace stator::fleet
