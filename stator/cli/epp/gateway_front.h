#pragma once

#include <cstdint>
#include <memory>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/http_door.h"
#include "stator/config/settings.h"
#include "stator/gateway/fleet_picker.h"
#include "stator/gateway/grpc/ext_proc_server.h"
#include "stator/metrics/registry.h"

namespace stator::cli {

/// The endpoint picker in front of a fleet: its decisions are those of the fleet's routers.
class GatewayFront {
  public:
    struct Options {
        gateway::FleetPickerOptions picker;
        gateway::ExtProcOptions server;
    };
    /// What is wrong in the settings is found before anything runs.
    [[nodiscard]] static Result<Options> read(const config::Settings& settings);
    /// `fleet` and `door` must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<GatewayFront>> start(
        Options options, const config::Settings& settings, FleetFront& fleet, HttpDoor& door,
        metrics::Registry& registry);

    [[nodiscard]] std::uint16_t port() const { return server_->port(); }
    /// Gateways are told that it is not ready.
    void drain() { server_->drain(); }
    /// Before the door and the fleet.
    void stop(Deadline deadline) { server_->stop(deadline); }

  private:
    GatewayFront() = default;
    std::shared_ptr<gateway::FleetPicker> picker_;
    std::unique_ptr<gateway::ExtProcServer> server_;
};

}  // namespace stator::cli
