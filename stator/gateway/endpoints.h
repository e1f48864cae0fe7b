#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stator/fleet/fleet.h"

namespace stator::gateway {

/// The label of a worker that says where requests to its pod go, "ip:port".
inline constexpr std::string_view kHttpLabel = "http";

/// Where the workers of a fleet take HTTP, at one moment; never changes. A worker's endpoint is its
/// label kHttpLabel, else the host that it is linked with and `target_port` (0: it has none).
class Endpoints {
  public:
    Endpoints() = default;
    Endpoints(const fleet::FleetView& view, std::uint16_t target_port);

    struct Ready {
        std::shared_ptr<fleet::Worker> worker;
        std::string endpoint;
        std::string pool;
    };
    /// Workers that take whole requests and have an endpoint.
    [[nodiscard]] const std::vector<Ready>& ready() const { return ready_; }
    /// Empty: that worker has none.
    [[nodiscard]] const std::string& of(const fleet::Worker& worker) const;
    /// Whether each worker that is ready has an endpoint.
    [[nodiscard]] bool complete() const { return complete_; }

  private:
    std::vector<Ready> ready_;
    std::unordered_map<std::uint64_t, std::string> by_worker_;
    bool complete_ = true;
};

}  // namespace stator::gateway
