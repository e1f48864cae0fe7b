#pragma once

#include <memory>

#include "stator/base/error.h"
#include "stator/cli/http_door.h"
#include "stator/config/settings.h"
#include "stator/frontend/relay/relay.h"
#include "stator/metrics/registry.h"

namespace stator::cli {

/// What is wrong in the settings of upstreams, found before anything runs.
[[nodiscard]] Result<void> check_upstreams(const config::FleetSettings& settings);

/// The upstreams of the settings behind the door; null where there are none. `door_has_keys`: then
/// its clients' keys are not the upstreams'. Stop it after the door and before its loops.
[[nodiscard]] Result<std::shared_ptr<frontend::Relay>> start_relay(
    const config::FleetSettings& settings, bool door_has_keys, HttpDoor& door,
    metrics::Registry& registry);

}  // namespace stator::cli
