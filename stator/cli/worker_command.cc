#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/command_settings.h"
#include "stator/cli/commands.h"
#include "stator/cli/curve_keys.h"
#include "stator/cli/help.h"
#include "stator/cli/kv_event_metrics.h"
#include "stator/cli/link_security.h"
#include "stator/cli/served_engine.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/cli/thread_plan.h"
#include "stator/cli/worker_door.h"
#include "stator/cli/worker_model.h"
#include "stator/cli/worker_processes.h"
#include "stator/control/supervisor.h"
#include "stator/discovery/source.h"
#include "stator/worker/worker.h"

namespace stator::cli {
namespace {

constexpr std::string_view kOff = "off";

std::string own_name(const config::WorkerSettings& s) {
    if (!s.name.empty()) return s.name;
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) return fmt::format("worker-{}", getpid());
    return fmt::format("{:.200}-{}", host.data(), ::getpid());
}

/// "%p" stands for the process id, so that a worker and its successor can be there together.
std::string with_pid(std::string text) {
    for (auto at = text.find("%p"); at != std::string::npos; at = text.find("%p", at)) {
        text.replace(at, 2, std::to_string(::getpid()));
    }
    return text;
}

/// Where events are published when nobody says: beside the link, of the same kind.
std::string events_address(const config::WorkerSettings& s, const net::SocketAddress& listen,
                           const std::string& name, const std::string& folder) {
    if (s.events == kOff) return "";
    if (!s.events.empty()) return with_pid(s.events);
    if (listen.kind == net::SocketAddress::Kind::kUnix) {
        return fmt::format("ipc://{}/{}.events", folder, name);
    }
    const bool v6 = listen.host.find(':') != std::string::npos;
    return v6 ? fmt::format("tcp://[{}]:*", listen.host) : fmt::format("tcp://{}:*", listen.host);
}

Result<worker::WorkerOptions> worker_options(const config::Settings& settings,
                                             const std::shared_ptr<LinkSecurity>& security) {
    const config::WorkerSettings& s = settings.worker;
    worker::WorkerOptions o;
    o.name = own_name(s);
    std::string listen = s.listen;
    std::string folder;
    if (listen.empty() || s.announce.empty()) {
        auto made = run_time_folder();
        if (!made) return tl::unexpected(made.error());
        folder = std::move(*made);
    }
    if (listen.empty()) listen = fmt::format("unix:{}/{}.sock", folder, o.name);
    auto address = net::parse_socket_address(with_pid(listen));
    if (!address) return tl::unexpected(address.error());
    o.listen = std::move(*address);
    if (auto ok = check_link_bind(o.listen, settings.link, settings.auth.allow_unauthenticated);
        !ok) {
        return tl::unexpected(ok.error());
    }
    o.advertise = s.advertise;
    o.announce_folder = s.announce.empty()   ? folder
                        : s.announce == kOff ? std::string()
                                             : s.announce;
    for (const std::string& label : s.labels) {
        const auto equals = label.find('=');
        if (equals == std::string::npos || equals == 0) {
            return error(ErrorCode::kInvalidArgument, "--label must be written KEY=VALUE, not {}.",
                         label);
        }
        o.labels[label.substr(0, equals)] = label.substr(equals + 1);
    }
    o.events_address = events_address(s, o.listen, o.name, folder);
    o.events_advertise = s.events_advertise;
    if (!s.events_key_file.empty()) {
        auto keys = read_curve_keys(s.events_key_file);
        if (!keys) return tl::unexpected(keys.error());
        o.events.curve = std::move(*keys);
    }
    if (!s.events_allow_file.empty()) {
        auto allowed = read_allowed_curve_keys(s.events_allow_file);
        if (!allowed) return tl::unexpected(allowed.error());
        o.events.allowed_clients = std::move(*allowed);
    }
    o.session.lost_after = settings.link.lost_after;
    o.secret = [security] { return security->secret(); };
    o.tls = [security] { return security->tls(); };
    return o;
}

/// Everything that runs, from listening to the end.
ExitCode run(const config::Settings& settings) {
    auto security = LinkSecurity::read(settings.link, LinkSecurity::Side::kWorker);
    if (!security) {
        print_problem(security.error());
        return ExitCode::kUsage;
    }
    auto options = worker_options(settings, *security);
    if (!options) {
        print_problem(options.error());
        return ExitCode::kUsage;
    }
    const std::string name = options->name;
    const std::string announced = options->announce_folder;
    StopSignal stop{SIGHUP};
    metrics::Registry registry;
    runtime::LoopPool loops(1, "links");
    loops.start();
    protocol::ModelCard loading;
    loading.name = settings.model.served_name.empty() ? "loading" : settings.model.served_name;
    auto worker = worker::start_worker(std::move(*options), std::move(loading), loops, registry);
    if (!worker) {
        print_problem(worker.error());
        loops.stop();
        return ExitCode::kUsage;
    }
    std::unique_ptr<WorkerDoor> door;
    const auto give_up = [&](const Error& why) {
        print_problem(why);
        door.reset();
        (*worker)->stop();
        loops.stop();
        return ExitCode::kUsage;
    };
    if (!settings.worker.http.empty()) {
        auto opened = WorkerDoor::open(
            settings.worker.http, settings.auth.allow_unauthenticated,
            [&worker] { return (*worker)->info(); }, registry, loops);
        if (!opened) return give_up(opened.error());
        door = std::move(*opened);
        log_info("Health and metrics are shown.", {{"port", door->port()}});
    }
    const ThreadPlan threads = plan_threads(runtime::usable_cores(), settings.engine.threads, 1);
    engine::KvEventSink publish = (*worker)->kv_sink(0);
    const engine::KvEventSink count = count_kv_events(registry);
    auto engine = open_engine(settings, threads.engine,
                              [publish, count](const std::vector<protocol::KvEvent>& events) {
                                  count(events);
                                  publish(events);
                              });
    if (!engine) return give_up(engine.error());
    auto model = describe_model(settings, *engine);
    if (!model) {
        engine->engine->stop(Deadline::at({}));
        return give_up(model.error());
    }
    const std::string model_name = model->card.name;
    (*worker)->set_ready(std::move(model->card), std::move(model->artifacts),
                         {engine->engine.get()});
    stop.begin_serving();
    const std::string address = net::to_string((*worker)->address());
    // A supervisor's terminal is the frontend's.
    const bool supervised = std::getenv("STATOR_READY_FD") != nullptr;
    control::tell_ready();
    if (!supervised)
        print_out(fmt::format(
            "Worker {} offers {} on {}{}\nCtrl-C lets its requests end first.\n", name, model_name,
            address,
            announced.empty() ? "; not announced" : fmt::format(", announced in {}", announced)));
    const int signal = wait_for_end(stop, **security);
    log_info("Draining: no new requests; those in work may end. A second signal stops at once.",
             {{"signal", signal}, {"grace_ms", settings.server.grace.count()}});
    const Deadline deadline = Deadline::after(Clock::real().now(), settings.server.grace);
    (*worker)->drain(deadline);
    door.reset();
    (*worker)->stop();
    engine->engine->stop(Deadline::at(Clock::real().now()));
    loops.stop();
    return ExitCode::kDone;
}

}  // namespace

ExitCode run_worker(const Invocation& invocation) {
    const auto settings = command_settings("stator worker", invocation, worker_help);
    if (!settings) return settings.error();
    return run(*settings);
}

}  // namespace stator::cli
