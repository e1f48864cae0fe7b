#include "stator/control/planner/fleet_watch.h"

#include <set>

#include "stator/base/log.h"
#include "stator/events/payloads.h"

namespace stator::control {

FleetWatch::FleetWatch(std::unique_ptr<events::SubscriberHost> host, const Clock& clock)
    : host_(std::move(host)), clock_(clock) {}

FleetWatch::~FleetWatch() { stop(); }

void FleetWatch::stop() {
    subscriptions_.clear();
    host_.reset();
}

void FleetWatch::follow(const fleet::FleetView& view) {
    if (!host_) return;
    std::set<std::uint64_t> there;
    for (const fleet::WorkerView& worker : view.workers) {
        if (!worker.info || !worker.info->events) continue;
        const std::uint64_t incarnation = worker.info->incarnation.value;
        there.insert(incarnation);
        if (subscriptions_.contains(incarnation)) continue;
        auto made =
            host_->listen(*worker.info->events, {"load"},
                          [this, incarnation](const events::Message& m) { take(incarnation, m); });
        if (!made) {
            log_warn("What a worker's forward passes do can't be followed.",
                     {{"worker", worker.info->name}, {"reason", made.error().message}});
        }
        // Once tried, not again for this life.
        subscriptions_.emplace(incarnation, made ? std::move(*made) : nullptr);
    }
    std::erase_if(subscriptions_, [&](const auto& s) { return !there.contains(s.first); });
    const std::lock_guard lock(mutex_);
    std::erase_if(heard_, [&](const auto& h) { return !there.contains(h.first.first); });
}

void FleetWatch::take(std::uint64_t incarnation, const events::Message& message) {
    if (message.heartbeat || message.incarnation.value != incarnation) return;
    const auto event = events::decode_load(message.payload);
    if (!event) return;
    const std::lock_guard lock(mutex_);
    heard_[{incarnation, message.rank}] = {event->forward, clock_.now()};
}

std::vector<WorkerSample> FleetWatch::read(const fleet::FleetView& view) const {
    std::vector<WorkerSample> out;
    for (const fleet::WorkerView& worker : view.workers) {
        if (!worker.info) continue;
        WorkerSample& sample = out.emplace_back();
        sample.info = worker.info;
        sample.state = worker.state;
        sample.pool = worker.pool;
        for (const protocol::RankInfo& info : worker.info->ranks) {
            RankSample& rank = sample.ranks.emplace_back();
            rank.info = info;
            if (worker.worker) rank.load = worker.worker->load(info.rank);
            const std::lock_guard lock(mutex_);
            const auto heard = heard_.find({worker.info->incarnation.value, info.rank});
            if (heard == heard_.end()) continue;
            rank.forward = heard->second.forward;
            rank.forward_at = heard->second.at;
        }
    }
    return out;
}

}  // namespace stator::control
