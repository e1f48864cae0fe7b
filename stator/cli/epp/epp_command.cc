#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <thread>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/command_settings.h"
#include "stator/cli/epp/epp_command.h"
#include "stator/cli/epp/gateway_front.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/help.h"
#include "stator/cli/http_door.h"
#include "stator/cli/settings_reload.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"

namespace stator::cli {
namespace {

std::size_t door_threads(const config::Settings& settings) {
    if (settings.server.threads != 0) return settings.server.threads;
    return std::clamp<std::size_t>(runtime::usable_cores() / 2, 1, 16);
}

Result<void> check(const config::Settings& settings) {
    if (auto ok = check_fleet_settings(settings.fleet); !ok) return ok;
    if (auto ok = check_router_settings(settings.router); !ok) return ok;
    if (auto options = GatewayFront::read(settings); !options) {
        return tl::unexpected(options.error());
    }
    return {};
}

ExitCode fail(const Error& why) {
    print_problem(why);
    return ExitCode::kUsage;
}

ExitCode run(const Invocation& invocation, const config::Settings& settings) {
    auto keys = read_door_keys(settings);
    if (!keys) return fail(keys.error());
    if (const auto ok = check(settings); !ok) return fail(ok.error());
    auto options = GatewayFront::read(settings);
    auto security = LinkSecurity::read(settings.link, LinkSecurity::Side::kFrontend);
    if (!security) return fail(security.error());
    StopSignal stop{SIGHUP};
    metrics::Registry registry;
    HttpDoor door(settings, std::move(*keys), door_threads(settings), registry);
    const auto end = [&door] {
        door.stop_serving(Deadline::at({}));
        door.stop_loops();
    };
    if (const auto listening = door.listen(); !listening) {
        end();
        return fail(listening.error());
    }
    auto front = FleetFront::start(settings, {}, *security, door, registry, {});
    if (!front) {
        end();
        return fail(front.error());
    }
    auto gateway = GatewayFront::start(std::move(*options), settings, **front, door, registry);
    if (!gateway) {
        (*front)->stop(Deadline::at({}));
        end();
        return fail(gateway.error());
    }
    SettingsReload reload(invocation, settings);
    stop.begin_serving();
    log_info("The endpoint picker listens; endpoints appear as their workers do.",
             {{"gateways", settings.gateway.listen},
              {"gateway_port", (*gateway)->port()},
              {"http_port", door.port()}});
    const int signal = wait_for_end(stop, **security, [&](int /*SIGHUP*/) {
        reload.reload([&](const config::RouterSettings& s) { return (*front)->set_router(s); });
    });
    log_info(
        "Stopping: it is not ready any more, and requests in work may end. A second signal "
        "stops at once.",
        {{"signal", signal}, {"grace_ms", settings.server.grace.count()}});
    (*gateway)->drain();
    std::this_thread::sleep_for(settings.gateway.drain);
    const Deadline deadline = Deadline::after(Clock::real().now(), settings.server.grace);
    (*gateway)->stop(deadline);
    door.stop_serving(deadline);
    (*front)->stop(deadline);
    door.stop_loops();
    log_info("The endpoint picker has stopped.");
    return ExitCode::kDone;
}

}  // namespace

ExitCode run_epp_here(const Invocation& invocation) {
    const auto settings = command_settings("stator epp", invocation, epp_help);
    if (!settings) return settings.error();
    return run(invocation, *settings);
}

}  // namespace stator::cli
