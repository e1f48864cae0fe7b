#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/control/planner/demand_feed.h"
#include "stator/protocol/demand.h"

namespace stator::control {

/// Demand, read from the Prometheus text of those who serve it: Stator's frontends, vLLM, SGLang,
/// or Dynamo's frontend. Models by their label; one that has none is "". What an engine was offered
/// is what it has finished and has in work; it does not tell whom it refused. Lines that are not
/// understood are passed over; at most 1,024 models.
[[nodiscard]] std::vector<protocol::DemandTotals> read_demand_metrics(std::string_view text);

/// Asks servers for their metrics and tells a feed. One thread.
class DemandScrape {
  public:
    struct Target {
        std::string url;  ///< http://HOST:PORT/metrics
        std::string key;  ///< bearer; empty: none
    };
    explicit DemandScrape(std::vector<Target> targets) : targets_(std::move(targets)) {}

    /// Asks all, one after the other; at most a second each. Those that don't answer are logged
    /// once, until they do again.
    void ask(DemandFeed& feed, TimePoint now);

  private:
    void told(std::size_t target, const std::string& problem);
    std::vector<Target> targets_;
    std::map<std::size_t, bool> failing_;
    /// What must not fall: requests that were in work and were given up would lower it.
    std::map<std::size_t, std::map<std::string, std::uint64_t>> most_offered_;
};

}  // namespace stator::control
