#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stator/fleet/fleet.h"

namespace stator::fleet {

/// Sorts workers into pools and remembers pools that have none for a while. Pure; one thread.
class ViewBuilder {
  public:
    explicit ViewBuilder(std::chrono::milliseconds remember_pools) : remember_(remember_pools) {}

    /// Fills in WorkerView::pool. Workers without words belong to no pool.
    [[nodiscard]] std::shared_ptr<const FleetView> build(
        std::vector<WorkerView> workers, std::map<std::string, std::string> failing_sources,
        TimePoint now);
    /// Whether a pool is to be forgotten by now: time to build again.
    [[nodiscard]] bool stale(TimePoint now) const;

  private:
    struct Pool {
        std::shared_ptr<const protocol::ModelCard> card;
        std::uint64_t opened = 0;
        Deadline until;  ///< never() while it has workers
    };

    std::chrono::milliseconds remember_;
    std::map<std::string, Pool> pools_;
    std::uint64_t opened_ = 0;
    std::uint64_t version_ = 0;
};

}  // namespace stator::fleet
