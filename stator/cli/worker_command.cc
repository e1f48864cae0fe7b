#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/attached_media.h"
#include "stator/cli/command_settings.h"
#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/link_security.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/cli/thread_plan.h"
#include "stator/cli/worker_door.h"
#include "stator/cli/worker_group.h"
#include "stator/cli/worker_places.h"
#include "stator/control/supervisor.h"

namespace stator::cli {
namespace {

std::string ready_text(const WorkerGroup& group, const std::string& announced) {
    const std::string where = net::to_string(group.at(0).address());
    const std::string seen =
        announced.empty() ? "; not announced" : fmt::format(", announced in {}", announced);
    const std::string how = "\nCtrl-C lets its requests end first.\n";
    if (group.size() == 1) {
        return fmt::format("Worker {} offers {} on {}{}{}", group.at(0).info().name,
                           group.model_name(), where, seen, how);
    }
    return fmt::format("{} workers, {} to {}, offer {}, the first on {}{}{}", group.size(),
                       group.at(0).info().name, group.at(group.size() - 1).info().name,
                       group.model_name(), where, seen, how);
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
    const std::string announced = options->front().announce_folder;
    StopSignal stop{SIGHUP};
    metrics::Registry registry;
    runtime::LoopPool loops(1, "links");
    loops.start();
    WorkerGroup group(settings, loops, registry);
    std::atomic<bool> started = false;
    std::atomic<bool> changed = false;
    std::unique_ptr<WorkerDoor> door;
    const auto give_up = [&](const Error& why) {
        print_problem(why);
        door.reset();
        group.stop();
        loops.stop();
        return ExitCode::kUsage;
    };
    const auto give_up_engine = [&](const Error& why) {
        const ExitCode code = give_up(why);
        return why.code == ErrorCode::kUnavailable ? code : ExitCode::kSetup;
    };
    const bool attached = settings.engine.kind == config::EngineKind::kAttached;
    protocol::WorkerInfo before;
    before.name = options->front().name;
    before.roles = options->front().roles;
    before.loading = true;
    const auto start = [&] {
        auto ok = group.start(std::move(*options), *security);
        started = ok.has_value();
        return ok;
    };
    if (!attached) {
        if (auto ok = start(); !ok) return give_up(ok.error());
    }
    if (!settings.worker.http.empty()) {
        std::shared_ptr<EncoderRegistry> encoders;
        if (attached && settings.engine.attached.size() == 1 &&
            settings.engine.attached.front().kind == "sglang") {
            const auto url = net::parse_http_url(settings.engine.attached.front().url);
            const auto key = read_key_line("--engine-key-file", settings.engine.key_file);
            encoders = std::make_shared<EncoderRegistry>(
                std::chrono::seconds(5), EncoderRegistry::Alive{},
                url && key ? tell_engine(*url, *key) : EncoderRegistry::Tell{});
        }
        auto opened = WorkerDoor::open(
            settings.worker.http, settings.auth.allow_unauthenticated,
            [&group, &started, before] { return started ? group.info() : before; }, registry, loops,
            [&group, &started] { return started ? group.concerns() : std::vector<std::string>{}; },
            std::move(encoders));
        if (!opened) return give_up(opened.error());
        door = std::move(*opened);
        log_info("Health and metrics are shown.", {{"port", door->port()}});
    }
    if (attached) {
        // How many ranks the worker has is for the engine to tell.
        auto found = find_attached(settings);
        if (!found) return give_up_engine(found.error());
        for (worker::WorkerOptions& o : *options) {
            o.ranks = found->found.ranks;
            o.media_objects = !found->options.media.kinds.empty();
            add_media_role(found->options, o.roles);
        }
        group.attach(std::move(*found), [&changed](const std::string& why) {
            log_error("The engine is another one than it was: this worker ends, to begin anew.",
                      {{"reason", why}});
            changed = true;
            ::kill(::getpid(), SIGTERM);
        });
        if (auto ok = start(); !ok) return give_up(ok.error());
    }
    const ThreadPlan threads = plan_threads(runtime::usable_cores(), settings.engine.threads, 1);
    if (auto ok = group.load(threads.engine); !ok) {
        return attached ? give_up_engine(ok.error()) : give_up(ok.error());
    }
    stop.begin_serving();
    // A supervisor's terminal is the frontend's.
    const bool supervised = std::getenv("STATOR_READY_FD") != nullptr;
    control::tell_ready();
    if (!supervised) print_out(ready_text(group, announced));
    const int signal = wait_for_end(stop, **security);
    log_info("Draining: no new requests; those in work may end. A second signal stops at once.",
             {{"signal", signal}, {"grace_ms", settings.server.grace.count()}});
    group.drain(Deadline::after(Clock::real().now(), settings.server.grace));
    door.reset();
    group.stop();
    loops.stop();
    return changed ? ExitCode::kFailed : ExitCode::kDone;
}

}  // namespace

ExitCode run_worker(const Invocation& invocation) {
    Invocation ours = invocation;
    for (std::string& arg : ours.args) {
        // The name that is free for this command alone.
        if (arg == "--count" || arg.starts_with("--count=")) arg.replace(0, 7, "--worker-count");
    }
    const auto settings = command_settings("stator worker", ours, worker_help);
    if (!settings) return settings.error();
    return run(*settings);
}

}  // namespace stator::cli
