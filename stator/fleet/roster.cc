#include "stator/fleet/roster.h"

#include <algorithm>
#include <utility>

namespace stator::fleet {

namespace {
constexpr std::array kStates{MemberState::kConnecting, MemberState::kReady, MemberState::kSuspect,
                             MemberState::kDraining, MemberState::kGone};
}

Roster::Roster(runtime::Loop& control, std::chrono::milliseconds remember_pools,
               metrics::Registry& registry, const Clock& clock)
    : control_(control),
      registry_(registry),
      clock_(clock),
      builder_(remember_pools),
      canaries_sent_(
          registry.counter("stator_fleet_canaries_sent_total",
                           "Requests of one token sent to see whether an engine works.")),
      canaries_lost_(registry.counter("stator_fleet_canaries_lost_total",
                                      "Canaries that got no token in time.")),
      refused_(registry.counter("stator_fleet_workers_refused_total",
                                "Workers refused for what they said of themselves.")),
      view_(std::make_shared<FleetView>()) {
    for (const MemberState s : kStates) {
        members_[static_cast<std::size_t>(s)] =
            &registry.gauge("stator_fleet_members", "Addresses that are known, by state.",
                            {{"state", std::string(to_string(s))}});
    }
}

std::shared_ptr<const FleetView> Roster::view() const {
    const std::scoped_lock lock(mutex_);
    return view_;
}

void Roster::watch(std::function<void(std::shared_ptr<const FleetView>)> changed) {
    control_.post([self = shared_from_this(), changed = std::move(changed)] {
        if (self->closed_) return;
        changed(self->view());
        self->watchers_.push_back(changed);
    });
}

void Roster::put(const WorkerView& entry) {
    const std::scoped_lock lock(mutex_);
    entries_[entry.address] = entry;
    changed();
}

void Roster::erase(const net::SocketAddress& address) {
    const std::scoped_lock lock(mutex_);
    if (entries_.erase(address) > 0) changed();
}

bool Roster::claim(protocol::Incarnation incarnation, const net::SocketAddress& address,
                   net::SocketAddress& holder) {
    const std::scoped_lock lock(mutex_);
    holder = holders_.try_emplace(incarnation, address).first->second;
    return holder == address;
}

void Roster::release(protocol::Incarnation incarnation, const net::SocketAddress& address) {
    const std::scoped_lock lock(mutex_);
    const auto held = holders_.find(incarnation);
    if (held != holders_.end() && held->second == address) holders_.erase(held);
}

void Roster::set_failing_sources(std::map<std::string, std::string> failing) {
    const std::scoped_lock lock(mutex_);
    if (failing == failing_) return;
    failing_ = std::move(failing);
    changed();
}

void Roster::look() {
    if (builder_.stale(clock_.now())) rebuild();
}

void Roster::close() {
    closed_ = true;
    watchers_.clear();
}

void Roster::count_transition(MemberState from, MemberState to) {
    registry_
        .counter("stator_fleet_transitions_total", "Changes of state of workers.",
                 {{"from", std::string(to_string(from))}, {"to", std::string(to_string(to))}})
        .add();
}

void Roster::changed() {
    if (std::exchange(scheduled_, true)) return;
    control_.post([self = shared_from_this()] { self->rebuild(); });
}

void Roster::rebuild() {
    std::vector<WorkerView> workers;
    std::map<std::string, std::string> failing;
    {
        const std::scoped_lock lock(mutex_);
        scheduled_ = false;
        workers.reserve(entries_.size());
        for (const auto& [address, entry] : entries_) workers.push_back(entry);
        failing = failing_;
    }
    for (const MemberState s : kStates) {
        members_[static_cast<std::size_t>(s)]->set(
            static_cast<double>(std::ranges::count(workers, s, &WorkerView::state)));
    }
    auto built = builder_.build(std::move(workers), std::move(failing), clock_.now());
    {
        const std::scoped_lock lock(mutex_);
        view_ = built;
    }
    for (const auto& watcher : watchers_) watcher(built);
}

}  // namespace stator::fleet
