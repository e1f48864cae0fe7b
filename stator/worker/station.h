#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/engine/engine.h"
#include "stator/protocol/worker_info.h"
#include "stator/runtime/cpu_pool.h"
#include "stator/transfer/transfer.h"
#include "stator/worker/artifact_store.h"
#include "stator/worker/event_outlet.h"
#include "stator/worker/open_requests.h"
#include "stator/worker/worker_metrics.h"

namespace stator::worker {

class WorkerLink;

/// What the worker is at one moment. Replaced as a whole, never changed.
struct WorkerState {
    protocol::WorkerInfo info;
    std::vector<engine::Engine*> engines;  ///< by rank; empty while loading
    std::shared_ptr<const ArtifactStore> artifacts = std::make_shared<const ArtifactStore>();
};

/// What the links of one worker share. Thread-safe. Links hold it, so that it outlives them.
class Station {
  public:
    Station(const Clock& clock_, std::chrono::milliseconds load_every_, metrics::Registry& registry,
            std::shared_ptr<runtime::CpuPool> fetches_, WorkerState state);
    ~Station();

    const Clock& clock;
    const std::chrono::milliseconds load_every;
    WorkerMetrics metrics;
    OpenRequests open;
    ArrivingRequests arriving;
    /// Null: no handoffs. With the next one, set before there is a link.
    std::shared_ptr<transfer::TransferPlane> transfer;
    std::chrono::milliseconds claim_within{5'000};
    std::shared_ptr<EventOutlet> events;  ///< set before there is a link
    /// Copies snapshots and ranges, which takes too long for a loop.
    const std::shared_ptr<runtime::CpuPool> fetches;
    std::function<void()> on_work;  ///< a request was accepted; set before there is a link

    /// Nobody will use a handoff that one of our legs has left, or that one was given.
    void release(std::shared_ptr<const protocol::Handoff> what) const;

    [[nodiscard]] std::shared_ptr<const WorkerState> state() const;
    /// Replaces the state by a changed copy and tells every link of it.
    void change(const std::function<void(WorkerState&)>& change);

    [[nodiscard]] std::uint32_t next_link_number();
    void add(std::uint32_t number, std::weak_ptr<WorkerLink> link);
    void remove(std::uint32_t number);
    [[nodiscard]] std::vector<std::shared_ptr<WorkerLink>> links() const;

  private:
    mutable std::mutex mutex_;
    std::shared_ptr<const WorkerState> state_;
    std::uint32_t last_link_ = 0;
    std::unordered_map<std::uint32_t, std::weak_ptr<WorkerLink>> links_;
};

}  // namespace stator::worker
