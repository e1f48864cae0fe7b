#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/base/version.h"
#include "stator/cli/command_settings.h"
#include "stator/cli/commands.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/fleet_summary.h"
#include "stator/cli/help.h"
#include "stator/cli/http_door.h"
#include "stator/cli/kv_event_metrics.h"
#include "stator/cli/planner_front.h"
#include "stator/cli/relay_front.h"
#include "stator/cli/served_engine.h"
#include "stator/cli/settings_reload.h"
#include "stator/cli/startup_summary.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/cli/thread_plan.h"
#include "stator/cli/trtllm_store.h"
#include "stator/cli/worker_processes.h"
#include "stator/config/topology.h"
#include "stator/config/yaml_file.h"
#include "stator/metrics/registry.h"

namespace stator::cli {
namespace {

/// What both ways of serving have.
struct Serving {
    const Invocation& invocation;
    const config::Settings& settings;
    ApiKeys keys;
};

void log_stopping(int signal, const config::Settings& settings) {
    log_info("Stopping: requests in work may end. A second signal stops at once.",
             {{"signal", signal}, {"grace_ms", settings.server.grace.count()}});
}

std::string summary_of(const Serving& serving, const ServedEngine& engine, std::uint16_t port,
                       ThreadPlan threads) {
    StartupFacts f;
    f.program = serving.invocation.program;
    f.version = version();
    f.model_id = engine.id;
    f.model_title = engine.title;
    f.file_bytes = engine.file_bytes;
    f.load_seconds = engine.load_seconds;
    f.engine = engine.engine->info();
    f.kv_tokens = engine.engine->load().kv_total_tokens;
    f.threads = threads;
    f.host = serving.settings.server.host;
    f.port = port;
    f.api_keys = !serving.settings.auth.api_key_file.empty();
    f.can_chat = engine.chat_template != nullptr;
    return startup_summary(f, style_of(STDOUT_FILENO));
}

/// The engine in this process: no links, no discovery.
ExitCode serve_here(Serving serving) {
    const config::Settings& settings = serving.settings;
    StopSignal stop;
    const ThreadPlan threads =
        plan_threads(runtime::usable_cores(), settings.engine.threads, settings.server.threads);
    metrics::Registry registry;
    auto engine = open_engine(settings, threads.engine, count_kv_events(registry));
    if (!engine) {
        print_problem(engine.error());
        return ExitCode::kUsage;
    }
    if (engine->mock_host) engine->mock_host->show(registry);
    HttpDoor door(settings, std::move(serving.keys), threads.http, registry);
    door.frontend().add_model(served_model(*engine, settings));
    const auto end = [&](std::chrono::milliseconds grace) {
        const Deadline deadline = Deadline::after(Clock::real().now(), grace);
        door.stop_serving(deadline);
        engine->engine->stop(deadline);
        door.stop_loops();
    };
    stop.begin_serving();
    if (const auto listening = door.listen(); !listening) {
        print_problem(listening.error());
        end(std::chrono::milliseconds(0));
        return ExitCode::kUsage;
    }
    log_info("The server is ready.",
             {{"model", engine->id}, {"host", settings.server.host}, {"port", door.port()}});
    print_out(summary_of(serving, *engine, door.port(), threads));
    const int signal = stop.wait();
    log_stopping(signal, settings);
    end(settings.server.grace);
    log_info("The server has stopped.");
    return ExitCode::kDone;
}

/// Replaces all workers on SIGUSR2, on a thread of its own so that signals are still heard.
class RollingRestart {
  public:
    explicit RollingRestart(control::Supervisor& workers) : workers_(workers) {}
    /// Ends a restart that waits for a worker to become ready.
    ~RollingRestart() {
        workers_.stop_restart();
        if (thread_.joinable()) thread_.join();
    }
    RollingRestart(const RollingRestart&) = delete;
    RollingRestart& operator=(const RollingRestart&) = delete;

    void begin() {
        if (running_.exchange(true)) {
            return log_warn("A restart of the workers is under way already.");
        }
        if (thread_.joinable()) thread_.join();
        thread_ = std::thread([this] { run(); });
    }

  private:
    void run() {
        log_info("Restarting all workers, one after the other.");
        if (const auto done = workers_.restart_all()) {
            log_info("All workers have been restarted.");
        } else {
            log_error("The restart of the workers was given up.",
                      {{"reason", done.error().message}});
        }
        running_ = false;
    }

    control::Supervisor& workers_;
    std::thread thread_;
    std::atomic<bool> running_{false};
};

int watch_signals(StopSignal& stop, LinkSecurity& security, control::Supervisor& workers,
                  const std::function<void()>& reload) {
    RollingRestart restart(workers);
    return wait_for_end(stop, security, [&](int signal) {
        if (signal == SIGUSR2) restart.begin();
        if (signal == SIGHUP) reload();
    });
}

/// The frontend in this process, engines in worker processes that are kept running.
ExitCode serve_with_workers(Serving serving, std::vector<config::TopologyWorker> topology) {
    const config::Settings& settings = serving.settings;
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
    auto folder = RunFolder::make();
    if (!security || !folder) {
        print_problem(!security ? security.error() : folder.error());
        return ExitCode::kUsage;
    }
    WorkerCommands commands("/proc/self/exe", serving.invocation.args, settings, topology,
                            (*folder)->path(), runtime::usable_cores());
    std::optional<planner::PlannerOptions> plan;
    PlannerWindow planner_window;
    if (settings.planner.mode != config::PlannerMode::kOff) {
        auto checked = PlannerFront::check(settings, commands.kinds());
        if (!checked) {
            print_problem(checked.error());
            return ExitCode::kUsage;
        }
        plan = std::move(*checked);
        std::size_t most = 0;
        for (const planner::RoleOptions& role : plan->roles) most += role.max;
        if (!plan->advisory) commands.divide_cores_by(most);
    }
    StopSignal stop{SIGHUP, SIGUSR2};
    metrics::Registry registry;
    const bool has_keys = !serving.keys.keys.empty();
    const std::size_t threads =
        plan_threads(runtime::usable_cores(), settings.engine.threads, settings.server.threads)
            .http;
    HttpDoor door(settings, std::move(serving.keys), threads, registry);
    std::once_flag shown;
    const auto served = [&](const protocol::ModelCard& card) {
        std::call_once(shown, [&] {
            print_out(fleet_summary(serving.invocation.program, settings.server.host, door.port(),
                                    has_keys, card, style_of(STDOUT_FILENO)));
        });
    };
    std::unique_ptr<FleetFront> front;
    std::shared_ptr<frontend::Relay> relay;
    const auto end = [&](Deadline deadline) {
        door.stop_serving(deadline);
        if (front) front->stop(deadline);
        if (relay) relay->stop();
        door.stop_loops();
    };
    if (auto made = start_relay(settings.fleet, has_keys, door, registry)) {
        relay = std::move(*made);
    } else {
        print_problem(made.error());
        return ExitCode::kUsage;
    }
    door.take_media(registry);
    if (plan) {
        door.frontend().observe_planner(
            [&planner_window](std::string_view target) { return planner_window.ask(target); });
        door.frontend().observe_concerns([&planner_window] { return planner_window.concerns(); });
    }
    auto started = door.listen();
    if (started) {
        auto made = FleetFront::start(settings, {"dir:" + (*folder)->path()}, *security, door,
                                      registry, served);
        if (made) {
            front = std::move(*made);
        } else {
            started = tl::unexpected(made.error());
        }
    }
    if (!started) {
        print_problem(started.error());
        end(Deadline::at({}));
        return ExitCode::kUsage;
    }
    control::SupervisorOptions options;
    options.restart_min = settings.supervisor.restart_min;
    options.restart_max = settings.supervisor.restart_max;
    // A worker drains within the grace time; then it is given a little to end.
    options.grace = settings.server.grace + std::chrono::seconds(5);
    auto workers = control::supervise(commands.all(), options);
    if (!workers) {
        print_problem(workers.error());
        end(Deadline::at({}));
        return ExitCode::kFailed;
    }
    std::unique_ptr<PlannerFront> planner;
    if (plan) {
        auto made = PlannerFront::start(*std::move(plan), settings, commands, **workers, *front,
                                        door, planner_window, registry);
        if (!made) {
            print_problem(made.error());
            end(Deadline::at({}));
            (*workers)->stop();
            return ExitCode::kFailed;
        }
        planner = std::move(*made);
    }
    std::unique_ptr<TrtllmStore> store;  // gone before its children
    if (!settings.engine.trtllm_store.empty()) {
        auto opened = TrtllmStore::open(
            settings.engine.trtllm_store, settings.auth.allow_unauthenticated, **workers,
            [&](const std::string& name, const std::string& url, const std::string& role) {
                return registered_command("/proc/self/exe", serving.invocation.args, settings,
                                          (*folder)->path(), name, url, role);
            });
        if (!opened) {
            print_problem(opened.error());
            end(Deadline::at({}));
            (*workers)->stop();
            return ExitCode::kUsage;
        }
        store = std::move(*opened);
        log_info("TensorRT-LLM workers may register themselves.", {{"port", store->port()}});
    }
    SettingsReload settings_reload(serving.invocation, settings);
    const auto reload = [&] {
        settings_reload.reload(
            [&](const config::RouterSettings& s) { return front->set_router(s); });
    };
    stop.begin_serving();
    log_info("The server listens; workers are being started.",
             {{"host", settings.server.host},
              {"port", door.port()},
              {"workers", (*workers)->status().size()}});
    const int signal = watch_signals(stop, **security, **workers, reload);
    log_stopping(signal, settings);
    if (planner) planner->stop();
    store.reset();
    end(Deadline::after(Clock::real().now(), settings.server.grace));
    (*workers)->stop();
    log_info("The server has stopped.");
    return ExitCode::kDone;
}

/// The topology file's workers; nothing (and every problem printed) where it is wrong.
std::optional<std::vector<config::TopologyWorker>> load_topology(const std::string& path) {
    if (path.empty()) return std::vector<config::TopologyWorker>{};
    if (const auto known = config::named_topology(path))
        return *config::read_topology(path, *known);
    const auto text = read_text_file("The topology file", path, config::kMaxFileBytes);
    if (!text) {
        print_problem(text.error());
        return std::nullopt;
    }
    auto read = config::read_topology(path, *text);
    if (!read) {
        for (const config::Problem& p : read.error()) print_problem(p.text());
        return std::nullopt;
    }
    return std::move(*read);
}

/// Engines of texts become upstreams; what can't be meant is an error.
Result<void> place_attached(config::Settings& settings) {
    config::EngineSettings& engine = settings.engine;
    if (settings.supervisor.workers > 0) {
        return error(ErrorCode::kInvalidArgument,
                     "--workers is for engines of our own; each engine that is named with --engine "
                     "KIND=URL gets a worker.");
    }
    for (const auto& [flag, list] : {std::pair{"--engine-events", &engine.events},
                                     std::pair{"--engine-replay", &engine.replay}}) {
        if (list->empty() || list->size() == engine.attached.size()) continue;
        return error(ErrorCode::kInvalidArgument,
                     "{} names {} addresses for {} engines: one each, in their order, or none "
                     "(\"off\" for one without).",
                     flag, list->size(), engine.attached.size());
    }
    for (const config::AttachedEngine& a : engine.attached) {
        auto url = net::parse_http_url(a.url);
        if (!url) {
            return error(ErrorCode::kInvalidArgument, "--engine {}={}: {}", a.kind, a.url,
                         url.error().message);
        }
        if (a.kind != "openai") continue;
        settings.fleet.upstreams.push_back(a.url);
        if (settings.fleet.upstream_key_file.empty()) {
            settings.fleet.upstream_key_file = engine.key_file;
        }
    }
    return {};
}

}  // namespace

ExitCode run_serve(const Invocation& invocation) {
    const auto settings = command_settings("stator serve", invocation, serve_help);
    if (!settings) return settings.error();
    auto keys = read_door_keys(*settings);
    if (!keys) {
        print_problem(keys.error());
        return ExitCode::kUsage;
    }
    auto topology = load_topology(settings->supervisor.topology);
    if (!topology) return ExitCode::kUsage;
    config::Settings ours = *settings;
    if (ours.supervisor.topology == "epd" && ours.model.mmproj.empty() &&
        ours.engine.kind == config::EngineKind::kLlama) {
        print_problem(
            "--topology epd needs the model's encoder of images: --mmproj FILE.gguf. Without "
            "images, "
            "--topology pd is what is meant.");
        return ExitCode::kUsage;
    }
    if (ours.planner.mode != config::PlannerMode::kOff && topology->empty() &&
        ours.engine.kind != config::EngineKind::kAttached && ours.supervisor.workers == 0) {
        ours.supervisor.workers = 1;
    }
    if (!ours.engine.trtllm_store.empty() && ours.engine.kind != config::EngineKind::kAttached) {
        return serve_with_workers({invocation, ours, std::move(*keys)}, std::move(*topology));
    }
    if (ours.engine.kind == config::EngineKind::kAttached) {
        if (auto ok = place_attached(ours); !ok) {
            print_problem(ok.error());
            return ExitCode::kUsage;
        }
        return serve_with_workers({invocation, ours, std::move(*keys)}, std::move(*topology));
    }
    // Images are encoded by a worker; a request's legs meet in it.
    if (!ours.model.mmproj.empty() && topology->empty() && ours.supervisor.workers == 0) {
        ours.supervisor.workers = 1;
    }
    Serving serving{invocation, ours, std::move(*keys)};
    if (ours.supervisor.workers == 0 && topology->empty()) {
        if (!settings->fleet.discover.empty()) {
            print_problem(
                "--discover is for `stator frontend`, or for `stator serve` with --workers: this "
                "server would compute the model itself and look for nobody.");
            return ExitCode::kUsage;
        }
        return serve_here(std::move(serving));
    }
    return serve_with_workers(std::move(serving), std::move(*topology));
}

}  // namespace stator::cli
