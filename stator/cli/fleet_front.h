#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/http_door.h"
#include "stator/cli/link_security.h"
#include "stator/cli/replica_front.h"
#include "stator/config/settings.h"
#include "stator/events/subscriber.h"
#include "stator/fleet/fleet.h"
#include "stator/frontend/pools/pool_models.h"
#include "stator/frontend/pools/router_api.h"
#include "stator/kube/access.h"
#include "stator/metrics/registry.h"
#include "stator/routing/remote_router.h"
#include "stator/transfer/transfer.h"

namespace stator::cli {

/// What is wrong in the settings of a fleet (sources, aliases, shares), found before anything runs.
[[nodiscard]] Result<void> check_fleet_settings(const config::FleetSettings& settings);

/// The same of the router's.
[[nodiscard]] Result<void> check_router_settings(const config::RouterSettings& settings);
/// "nobody", "local", "everybody".
[[nodiscard]] std::optional<frontend::TrustHints> trust_of(std::string_view hints);

[[nodiscard]] kube::AccessOptions kube_access_of(const config::KubeSettings& settings);
/// How a fleet is found and spoken to: `sources` and those of the settings; where neither names
/// one, the user's run-time folder. `role` begins this process's name in the workers' logs.
[[nodiscard]] Result<fleet::FleetOptions> fleet_options_of(
    const config::Settings& settings, std::vector<std::string> sources,
    const std::shared_ptr<LinkSecurity>& security, std::string_view role);

/// How to receive events: with the keys of the settings.
[[nodiscard]] Result<events::SubscriberHostOptions> subscriber_options(
    const config::Settings& settings);

/// The fleet behind an HTTP door: discovery, links, and the models of the pools found there.
class FleetFront {
  public:
    /// `sources` as above. `served` is told of each pool that begins to be served, from a thread of
    /// its own.
    [[nodiscard]] static Result<std::unique_ptr<FleetFront>> start(
        const config::Settings& settings, std::vector<std::string> sources,
        std::shared_ptr<LinkSecurity> security, HttpDoor& door, metrics::Registry& registry,
        std::function<void(const protocol::ModelCard&)> served);

    /// Policy, weights, and how requests wait, for the pools there are and those to come; the rest
    /// needs a restart.
    [[nodiscard]] Result<void> set_router(const config::RouterSettings& settings);
    /// Between HttpDoor::stop_serving() and stop_loops().
    void stop(Deadline deadline);
    /// Requests that wait for a worker here. Any thread.
    [[nodiscard]] double queued() const;
    [[nodiscard]] fleet::Fleet& fleet() { return *fleet_; }
    /// Null: no such pool is served. Any thread.
    [[nodiscard]] std::shared_ptr<routing::PoolRouter> router_of(std::string_view pool) const;

  private:
    FleetFront() = default;
    std::unique_ptr<fleet::Fleet> fleet_;
    std::shared_ptr<transfer::TransferPlane> transfer_;  ///< gives back what nobody will claim
    std::shared_ptr<ReplicaFront> replicas_;             ///< null: bookings are not shared
    std::shared_ptr<routing::RemoteRouter> shared_router_;
    std::unique_ptr<frontend::PoolModels> models_;
    std::unique_ptr<frontend::RouterApi> router_api_;
    frontend::Frontend* frontend_ = nullptr;
    std::vector<std::pair<std::string, double>> key_weights_;  ///< of tenants, in the key file
};

}  // namespace stator::cli
