#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/base/version.h"
#include "stator/cli/api_keys.h"
#include "stator/cli/bind_guard.h"
#include "stator/cli/command_line.h"
#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/kv_event_metrics.h"
#include "stator/cli/served_engine.h"
#include "stator/cli/settings_source.h"
#include "stator/cli/startup_summary.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/cli/thread_plan.h"
#include "stator/frontend/frontend.h"
#include "stator/metrics/registry.h"
#include "stator/net/http_server.h"
#include "stator/runtime/loop.h"

namespace stator::cli {
namespace {

net::HttpLimits http_limits(const config::LimitSettings& s) {
    net::HttpLimits l;
    l.max_header_bytes = s.max_header_size.bytes;
    l.max_headers = s.max_headers;
    l.max_body_bytes = s.max_body_size.bytes;
    l.max_buffered_body_bytes = s.max_buffered_bodies.bytes;
    l.max_output_bytes = s.max_unsent_output.bytes;
    l.max_connections = s.max_connections;
    l.header_timeout = s.header_timeout;
    l.body_timeout = s.body_timeout;
    l.idle_timeout = s.idle_timeout;
    l.write_timeout = s.write_timeout;
    return l;
}

frontend::FrontendOptions frontend_options(const config::Settings& s,
                                           std::vector<std::string> keys) {
    frontend::FrontendOptions o;
    o.api_keys = std::move(keys);
    o.cors_origins = s.server.cors_origins;
    o.max_choices = s.limits.max_choices;
    o.max_inflight = s.limits.max_inflight;
    o.request_timeout = s.limits.request_timeout;
    o.access_log = s.log.access;
    return o;
}

/// Everything that runs, in the order in which it is made; ended in the reverse order by stop().
class RunningServer {
  public:
    RunningServer(const config::Settings& settings, std::vector<std::string> keys,
                  ServedEngine engine, ThreadPlan threads, metrics::Registry& registry)
        : settings_(settings),
          engine_(std::move(engine)),
          loops_(threads.http, "http"),
          frontend_(frontend_options(settings, std::move(keys)), loops_, registry),
          server_(loops_, http_limits(settings.limits), frontend_.handler(),
                  frontend::Frontend::error_body()) {
        frontend::ServedModel model;
        model.id = engine_.id;
        model.aliases = settings.model.aliases;
        model.created = Clock::real().unix_seconds();
        model.tokenizer = &engine_.tokenizer();
        model.chat_template = engine_.chat_template ? &*engine_.chat_template : nullptr;
        model.engine = engine_.engine.get();
        model.defaults = engine_.defaults;
        frontend_.add_model(std::move(model));
        frontend_.observe_server([this] { return server_.stats(); });
        loops_.start();
    }

    [[nodiscard]] Result<void> listen() {
        const config::ServerSettings& s = settings_.server;
        auto done = server_.listen(s.host, static_cast<std::uint16_t>(s.port));
        if (!done) return done;
        if (!s.port_file.empty()) {
            done = write_file_at_once("The port file", s.port_file,
                                      fmt::format("{}\n", server_.port()));
            if (!done) return done;
        }
        frontend_.set_ready(true);
        return {};
    }

    /// Within the time given: no new requests, those in work end, the rest is cut off.
    void stop(std::chrono::milliseconds grace) {
        const Deadline deadline = Deadline::after(Clock::real().now(), grace);
        frontend_.set_ready(false);
        server_.stop(deadline);
        engine_.engine->stop(deadline);
        loops_.stop();
        if (!settings_.server.port_file.empty()) ::unlink(settings_.server.port_file.c_str());
    }

    [[nodiscard]] const ServedEngine& engine() const { return engine_; }
    [[nodiscard]] std::uint16_t port() const { return server_.port(); }

  private:
    const config::Settings& settings_;
    ServedEngine engine_;
    runtime::LoopPool loops_;
    frontend::Frontend frontend_;
    net::HttpServer server_;
};

std::string summary_of(const Invocation& invocation, const config::Settings& settings,
                       const RunningServer& server, ThreadPlan threads) {
    const ServedEngine& engine = server.engine();
    StartupFacts f;
    f.program = invocation.program;
    f.version = version();
    f.model_id = engine.id;
    f.model_title = engine.title;
    f.file_bytes = engine.file_bytes;
    f.load_seconds = engine.load_seconds;
    f.engine = engine.engine->info();
    f.kv_tokens = engine.engine->load().kv_total_tokens;
    f.threads = threads;
    f.host = settings.server.host;
    f.port = server.port();
    f.api_keys = !settings.auth.api_key_file.empty();
    f.can_chat = engine.chat_template.has_value();
    return startup_summary(f, style_of(STDOUT_FILENO));
}

ExitCode serve(const Invocation& invocation, const config::Settings& settings) {
    std::vector<std::string> keys;
    if (!settings.auth.api_key_file.empty()) {
        auto read = read_api_keys(settings.auth.api_key_file);
        if (!read) {
            print_problem(read.error());
            return ExitCode::kUsage;
        }
        for (const std::string& warning : read->warnings) log_warn(warning);
        keys = std::move(read->keys);
    }
    const auto bind =
        check_bind(settings.server.host, !keys.empty(), settings.auth.allow_unauthenticated);
    if (!bind) {
        print_problem(bind.error());
        return ExitCode::kUsage;
    }

    // A port of an earlier run must not be taken for this one's.
    if (!settings.server.port_file.empty()) ::unlink(settings.server.port_file.c_str());
    StopSignal stop;
    const ThreadPlan threads =
        plan_threads(runtime::usable_cores(), settings.engine.threads, settings.server.threads);
    metrics::Registry registry;
    auto engine = open_engine(settings, threads.engine, count_kv_events(registry));
    if (!engine) {
        print_problem(engine.error());
        return ExitCode::kUsage;
    }
    RunningServer server(settings, std::move(keys), std::move(*engine), threads, registry);
    stop.begin_serving();
    if (const auto listening = server.listen(); !listening) {
        print_problem(listening.error());
        server.stop(std::chrono::milliseconds(0));
        return ExitCode::kUsage;
    }
    log_info(
        "The server is ready.",
        {{"model", server.engine().id}, {"host", settings.server.host}, {"port", server.port()}});
    print_out(summary_of(invocation, settings, server, threads));

    const int signal = stop.wait();
    log_info("Stopping: requests in work may end. A second signal stops at once.",
             {{"signal", signal}, {"grace_ms", settings.server.grace.count()}});
    server.stop(settings.server.grace);
    log_info("The server has stopped.");
    return ExitCode::kDone;
}

}  // namespace

ExitCode run_serve(const Invocation& invocation) {
    CommandLine line("stator serve");
    std::string config_path;
    std::vector<config::FlagValue> flags;
    line.add_value("--config", config_path);
    line.add_options(flags);
    const auto outcome = line.parse(invocation.args);
    if (!outcome) {
        print_problem(outcome.error());
        return ExitCode::kUsage;
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(serve_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    const auto loaded = load_settings(config_path, std::move(flags));
    if (!loaded) return ExitCode::kUsage;
    set_log(loaded->settings.log.level, loaded->settings.log.format);
    return serve(invocation, loaded->settings);
}

}  // namespace stator::cli
