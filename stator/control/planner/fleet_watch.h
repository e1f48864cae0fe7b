#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/events/subscriber.h"
#include "stator/fleet/fleet.h"
#include "stator/protocol/load.h"
#include "stator/protocol/worker_info.h"

namespace stator::control {

struct RankSample {
    protocol::RankInfo info;
    protocol::LoadReport load;
    /// Totals since the worker's start, as its events last told; nothing until they have.
    std::optional<protocol::ForwardPassMetrics> forward;
    TimePoint forward_at;
};

/// A worker as the fleet sees it at one moment.
struct WorkerSample {
    std::shared_ptr<const protocol::WorkerInfo> info;
    fleet::MemberState state = fleet::MemberState::kConnecting;
    std::string pool;
    std::vector<RankSample> ranks;
};

/// Hears what workers' forward passes do (topic "load"), whatever workers a fleet has, and puts it
/// beside their loads. One thread.
class FleetWatch {
  public:
    /// Null: events can't be had; samples come without `forward`.
    FleetWatch(std::unique_ptr<events::SubscriberHost> host, const Clock& clock);
    ~FleetWatch();
    FleetWatch(const FleetWatch&) = delete;
    FleetWatch& operator=(const FleetWatch&) = delete;

    /// Listens to those that came, and no more to those that went.
    void follow(const fleet::FleetView& view);
    /// Every worker that has said what it is, whatever its state.
    [[nodiscard]] std::vector<WorkerSample> read(const fleet::FleetView& view) const;
    /// Ends all listening.
    void stop();

  private:
    struct Heard {
        protocol::ForwardPassMetrics forward;
        TimePoint at;
    };
    using Key = std::pair<std::uint64_t, std::uint32_t>;  ///< incarnation, rank
    void take(std::uint64_t incarnation, const events::Message& message);

    std::unique_ptr<events::SubscriberHost> host_;
    const Clock& clock_;
    std::map<std::uint64_t, std::unique_ptr<events::Subscription>> subscriptions_;
    mutable std::mutex mutex_;
    std::map<Key, Heard> heard_;
};

}  // namespace stator::control
