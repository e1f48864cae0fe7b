#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "stator/fleet/view_builder.h"

namespace stator::fleet {

/// What the dialers of all loops know together: an entry for each address, who holds which
/// incarnation, and the views made of it. Thread-safe. A view is built on the control loop, once
/// for all changes of a turn.
class Roster : public std::enable_shared_from_this<Roster> {
  public:
    Roster(runtime::Loop& control, std::chrono::milliseconds remember_pools,
           metrics::Registry& registry, const Clock& clock);

    [[nodiscard]] std::shared_ptr<const FleetView> view() const;
    void watch(std::function<void(std::shared_ptr<const FleetView>)> changed);

    void put(const WorkerView& entry);
    void erase(const net::SocketAddress& address);
    /// True where nobody else holds it; `holder` says who does.
    [[nodiscard]] bool claim(protocol::Incarnation incarnation, const net::SocketAddress& address,
                             net::SocketAddress& holder);
    void release(protocol::Incarnation incarnation, const net::SocketAddress& address);
    void set_failing_sources(std::map<std::string, std::string> failing);
    /// On the control loop, now and then: forgets pools.
    void look();
    /// On the control loop: watchers are told nothing any more.
    void close();

    void count_transition(MemberState from, MemberState to);
    void count_canary(bool lost) { (lost ? canaries_lost_ : canaries_sent_).add(); }
    void count_refused() { refused_.add(); }
    [[nodiscard]] std::uint64_t next_worker_id() { return next_id_.fetch_add(1) + 1; }

  private:
    void changed();  ///< mutex_ held
    void rebuild();

    runtime::Loop& control_;
    metrics::Registry& registry_;
    const Clock& clock_;
    ViewBuilder builder_;  ///< of the control loop
    std::vector<std::function<void(std::shared_ptr<const FleetView>)>> watchers_;  ///< as well
    bool closed_ = false;                                                          ///< as well
    std::array<metrics::Gauge*, 5> members_{};
    metrics::Counter& canaries_sent_;
    metrics::Counter& canaries_lost_;
    metrics::Counter& refused_;
    std::atomic<std::uint64_t> next_id_{0};

    mutable std::mutex mutex_;
    std::map<net::SocketAddress, WorkerView> entries_;
    std::map<protocol::Incarnation, net::SocketAddress> holders_;
    std::map<std::string, std::string> failing_;
    std::shared_ptr<const FleetView> view_;
    bool scheduled_ = false;
};

}  // namespace stator::fleet
