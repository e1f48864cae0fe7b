#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <mutex>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/command_settings.h"
#include "stator/cli/commands.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/fleet_summary.h"
#include "stator/cli/help.h"
#include "stator/cli/http_door.h"
#include "stator/cli/relay_front.h"
#include "stator/cli/settings_reload.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"

namespace stator::cli {
namespace {

/// Everything is the model's here: no engine takes cores away.
std::size_t door_threads(const config::Settings& settings) {
    if (settings.server.threads != 0) return settings.server.threads;
    return std::clamp<std::size_t>(runtime::usable_cores(), 1, 16);
}

ExitCode run(const Invocation& invocation, const config::Settings& settings) {
    auto keys = read_door_keys(settings);
    if (!keys) {
        print_problem(keys.error());
        return ExitCode::kUsage;
    }
    const bool has_keys = !keys->keys.empty();
    if (const auto ok = check_fleet_settings(settings.fleet); !ok) {
        print_problem(ok.error());
        return ExitCode::kUsage;
    }
    if (const auto ok = check_router_settings(settings.router); !ok) {
        print_problem(ok.error());
        return ExitCode::kUsage;
    }
    if (const auto ok = check_upstreams(settings.fleet); !ok) {
        print_problem(ok.error());
        return ExitCode::kUsage;
    }
    auto security = LinkSecurity::read(settings.link, LinkSecurity::Side::kFrontend);
    if (!security) {
        print_problem(security.error());
        return ExitCode::kUsage;
    }
    StopSignal stop{SIGHUP};
    metrics::Registry registry;
    HttpDoor door(settings, std::move(*keys), door_threads(settings), registry);
    std::once_flag shown;
    const auto served = [&](const protocol::ModelCard& card) {
        std::call_once(shown, [&] {
            print_out(fleet_summary(invocation.program, settings.server.host, door.port(), has_keys,
                                    card, style_of(STDOUT_FILENO)));
        });
    };
    auto relay = start_relay(settings.fleet, has_keys, door, registry);
    if (!relay) {
        print_problem(relay.error());
        return ExitCode::kUsage;
    }
    // The port is known before the first model is.
    door.take_media(registry);
    if (const auto listening = door.listen(); !listening) {
        print_problem(listening.error());
        door.stop_serving(Deadline::at({}));
        door.stop_loops();
        return ExitCode::kUsage;
    }
    auto front = FleetFront::start(settings, {}, *security, door, registry, served);
    if (!front) {
        print_problem(front.error());
        door.stop_serving(Deadline::at({}));
        door.stop_loops();
        return ExitCode::kUsage;
    }
    SettingsReload reload(invocation, settings);
    stop.begin_serving();
    log_info("The frontend listens; models appear as their workers do.",
             {{"host", settings.server.host}, {"port", door.port()}});
    const int signal = wait_for_end(stop, **security, [&](int /*SIGHUP*/) {
        reload.reload([&](const config::RouterSettings& s) { return (*front)->set_router(s); });
    });
    log_info("Stopping: requests in work may end. A second signal stops at once.",
             {{"signal", signal}, {"grace_ms", settings.server.grace.count()}});
    const Deadline deadline = Deadline::after(Clock::real().now(), settings.server.grace);
    door.stop_serving(deadline);
    (*front)->stop(deadline);
    if (*relay) (*relay)->stop();
    door.stop_loops();
    log_info("The frontend has stopped.");
    return ExitCode::kDone;
}

}  // namespace

ExitCode run_frontend(const Invocation& invocation) {
    const auto settings = command_settings("stator frontend", invocation, frontend_help);
    if (!settings) return settings.error();
    return run(invocation, *settings);
}

/// A frontend whose answers are what is wanted of POST /router/…; it would serve requests, too.
ExitCode run_router(const Invocation& invocation) {
    const auto settings = command_settings("stator router", invocation, router_help);
    if (!settings) return settings.error();
    return run(invocation, *settings);
}

}  // namespace stator::cli
