#include "stator/worker/station.h"

#include <utility>

#include "stator/worker/worker_link.h"

namespace stator::worker {

Station::Station(const Clock& clock_, std::chrono::milliseconds load_every_,
                 metrics::Registry& registry, std::shared_ptr<runtime::CpuPool> fetches_,
                 WorkerState state)
    : clock(clock_),
      load_every(load_every_),
      metrics(registry),
      fetches(std::move(fetches_)),
      state_(std::make_shared<const WorkerState>(std::move(state))) {}

Station::~Station() = default;

void Station::release(std::shared_ptr<const protocol::Handoff> what) const {
    if (what->object.empty()) {
        if (transfer) transfer->release(std::move(what));
        return;
    }
    // The one that has made it knows it by its id.
    for (engine::Engine* const engine : state()->engines) engine->release(what);
}

std::shared_ptr<const WorkerState> Station::state() const {
    const std::scoped_lock lock(mutex_);
    return state_;
}

void Station::change(const std::function<void(WorkerState&)>& change) {
    {
        const std::scoped_lock lock(mutex_);
        auto next = std::make_shared<WorkerState>(*state_);
        change(*next);
        state_ = std::move(next);
    }
    for (const auto& link : links()) link->tell_info();
}

std::uint32_t Station::next_link_number() {
    const std::scoped_lock lock(mutex_);
    return ++last_link_;
}

void Station::add(std::uint32_t number, std::weak_ptr<WorkerLink> link) {
    const std::scoped_lock lock(mutex_);
    links_[number] = std::move(link);
}

void Station::remove(std::uint32_t number) {
    const std::scoped_lock lock(mutex_);
    links_.erase(number);
}

std::vector<std::shared_ptr<WorkerLink>> Station::links() const {
    std::vector<std::shared_ptr<WorkerLink>> out;
    const std::scoped_lock lock(mutex_);
    out.reserve(links_.size());
    for (const auto& [number, weak] : links_) {
        if (auto link = weak.lock()) out.push_back(std::move(link));
    }
    return out;
}

}  // namespace stator::worker
