#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/bind_guard.h"
#include "stator/cli/command_line.h"
#include "stator/cli/command_settings.h"
#include "stator/cli/commands.h"
#include "stator/cli/demand_watch.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/help.h"
#include "stator/cli/link_security.h"
#include "stator/cli/planner_front.h"
#include "stator/cli/planner_setup.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/cli/worker_processes.h"
#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/config/value.h"
#include "stator/control/planner/webhook_actuator.h"
#include "stator/net/http_client.h"
#include "stator/net/http_server.h"
#include "stator/net/socket_address.h"

namespace stator::cli {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::size_t kExpectedWorkers = 1024;

std::string problem_json(std::string_view message) {
    std::string body;
    codec::JsonWriter w(body);
    w.begin_object().key("error").begin_object().key("message").string(message);
    w.end_object().end_object();
    return body;
}

/// GET /planner, /planner/decisions, /health, /live, /metrics.
class PlannerDoor {
  public:
    PlannerDoor(const PlannerWindow& window, metrics::Registry& registry, runtime::LoopPool& loops)
        : server_(
              loops, net::HttpLimits{},
              [&window, &registry](std::shared_ptr<net::HttpExchange> exchange) {
                  answer(*exchange, window, registry);
              },
              [](int /*status*/, std::string_view message) {
                  return std::pair<std::string, std::string>(kJson, problem_json(message));
              }) {}
    ~PlannerDoor() { server_.stop(Deadline::after(Clock::real().now(), std::chrono::seconds(1))); }
    PlannerDoor(const PlannerDoor&) = delete;
    PlannerDoor& operator=(const PlannerDoor&) = delete;

    [[nodiscard]] Result<void> listen(const std::string& address, bool allow_unauthenticated) {
        const auto where = net::parse_socket_address(address);
        if (!where) return tl::unexpected(where.error());
        if (where->kind != net::SocketAddress::Kind::kTcp) {
            return error(ErrorCode::kInvalidArgument, "--planner-http takes HOST:PORT, not {}.",
                         address);
        }
        if (!is_loopback(where->host) && !allow_unauthenticated) {
            return error(ErrorCode::kInvalidArgument,
                         "Showing the planner on {} to other machines needs "
                         "--allow-unauthenticated: what it shows needs no key.",
                         address);
        }
        return server_.listen(where->host, where->port);
    }
    [[nodiscard]] std::uint16_t port() const { return server_.port(); }

  private:
    static void answer(net::HttpExchange& exchange, const PlannerWindow& window,
                       metrics::Registry& registry) {
        const net::HttpRequest& request = exchange.request();
        if (request.method != "GET" && request.method != "HEAD") {
            exchange.add_header("Allow", "GET, HEAD");
            return exchange.respond(405, kJson, problem_json("only GET is taken here"));
        }
        if (request.path == "/live") return exchange.respond(200, kJson, R"({"status":"live"})");
        if (request.path == "/metrics") {
            return exchange.respond(200, "text/plain; version=0.0.4; charset=utf-8",
                                    registry.render());
        }
        if (request.path == "/health") {
            const auto concerns = window.concerns();
            std::string body;
            codec::JsonWriter w(body);
            w.begin_object().key("status").string(concerns.empty() ? "ready" : "degraded");
            w.key("concerns").begin_array();
            for (const std::string& concern : concerns) w.string(concern);
            w.end_array().end_object();
            return exchange.respond(200, kJson, body);
        }
        const auto shown = window.ask(request.target);
        if (!shown) {
            const int status = shown.error().code == ErrorCode::kNotFound          ? 404
                               : shown.error().code == ErrorCode::kInvalidArgument ? 400
                                                                                   : 503;
            return exchange.respond(status, kJson, problem_json(shown.error().message));
        }
        const bool text = request.target.find("format=text") != std::string::npos;
        exchange.respond(200, text ? "text/plain; charset=utf-8" : kJson, *shown);
    }

    net::HttpServer server_;
};

/// Every role may be sized that --planner-workers names; else that of whole requests.
Result<planner::PlannerOptions> options_of(const config::Settings& settings) {
    auto options = planner_options(settings.planner);
    if (!options) return options;
    auto roles = read_worker_ranges(settings.planner.workers);
    if (!roles.empty()) options->roles = std::move(roles);
    if (settings.planner.webhook.empty()) options->advisory = true;
    if (auto ok = planner::Planner::make(*options); !ok) return tl::unexpected(ok.error());
    return options;
}

Result<std::shared_ptr<control::Actuator>> webhook_of(const config::PlannerSettings& settings) {
    if (settings.webhook.empty() || settings.mode == config::PlannerMode::kAdvise) return nullptr;
    if (auto url = net::parse_http_url(settings.webhook); !url) {
        return error(ErrorCode::kInvalidArgument, "--planner-webhook: {}", url.error().message);
    }
    auto key = read_key_line("--planner-webhook-key-file", settings.webhook_key_file);
    if (!key) return tl::unexpected(key.error());
    return std::make_shared<control::WebhookActuator>(
        control::WebhookOptions{.url = settings.webhook, .key = *key}, Clock::real());
}

/// Where frontends are: named ones, and the folders in which workers are looked for.
Result<std::vector<std::string>> frontend_sources(const config::Settings& settings) {
    std::vector<std::string> sources = settings.router.peers;
    for (const std::string& source : settings.fleet.discover) {
        if (source.starts_with("dir:")) sources.push_back(source);
    }
    if (!sources.empty()) return sources;
    auto folder = run_time_folder();
    if (!folder) return tl::unexpected(folder.error());
    return std::vector<std::string>{"dir:" + *folder};
}

ExitCode plan(const config::Settings& settings) {
    const auto fail = [](const Error& why) {
        print_problem(why);
        return ExitCode::kUsage;
    };
    if (const auto ok = check_fleet_settings(settings.fleet); !ok) return fail(ok.error());
    auto options = options_of(settings);
    if (!options) return fail(options.error());
    auto webhook = webhook_of(settings.planner);
    if (!webhook) return fail(webhook.error());
    auto targets = scrape_targets(settings.planner);
    if (!targets) return fail(targets.error());
    auto security = LinkSecurity::read(settings.link, LinkSecurity::Side::kFrontend);
    if (!security) return fail(security.error());
    auto events_options = subscriber_options(settings);
    if (!events_options) return fail(events_options.error());
    auto sources = frontend_sources(settings);
    if (!sources) return fail(sources.error());
    auto host = events::start_subscribers(*events_options, kExpectedWorkers);
    if (!host) return fail(host.error());
    auto fleet_options = fleet_options_of(settings, {}, *security, "planner");
    if (!fleet_options) return fail(fleet_options.error());
    control::PlannerServiceOptions o;
    o.lease_file = settings.planner.lease;
    if (o.lease_file.empty()) {
        auto folder = run_time_folder();
        if (!folder) return fail(folder.error());
        o.lease_file = *folder + "/planner.lease";
    }

    StopSignal stop{SIGHUP};
    metrics::Registry registry;
    runtime::LoopPool loops(1, "planner");
    loops.start();
    control::DemandFeed feed;
    control::FleetWatch watch(std::move(*host), Clock::real());
    PlannerWindow window;
    std::unique_ptr<fleet::Fleet> fleet;
    std::shared_ptr<DemandWatch> demand;
    std::shared_ptr<control::PlannerService> service;
    auto door = std::make_unique<PlannerDoor>(window, registry, loops);
    const auto end = [&] {
        window.show(nullptr);
        if (service) service->stop();
        door.reset();
        if (demand) demand->stop();
        if (fleet) fleet->stop();
        watch.stop();
        loops.stop();
    };
    const auto fail_late = [&](const Error& why) {
        print_problem(why);
        end();
        return ExitCode::kUsage;
    };
    if (auto ok = door->listen(settings.planner.http, settings.auth.allow_unauthenticated); !ok) {
        return fail_late(ok.error());
    }
    auto started = fleet::start_fleet(std::move(*fleet_options), loops, registry);
    if (!started) return fail_late(started.error());
    fleet = std::move(*started);
    auto watching = DemandWatch::start(*sources, std::move(*events_options), loops.at(0), feed);
    if (!watching) return fail_late(watching.error());
    demand = std::move(*watching);
    control::DemandScrape scrape(*std::move(targets));
    if (!settings.planner.scrape.empty()) {
        o.ask_demand.push_back(
            [&scrape](control::DemandFeed& to, TimePoint now) { scrape.ask(to, now); });
    }
    o.planner = std::move(*options);
    o.model = settings.planner.model;
    o.view = [&fleet] { return fleet->view(); };
    auto made =
        control::PlannerService::start(std::move(o), watch, feed, *std::move(webhook), registry);
    if (!made) return fail_late(made.error());
    service = std::move(*made);
    window.show(service);
    stop.begin_serving();
    log_info("The planner watches the fleet.",
             {{"address", settings.planner.http}, {"port", door->port()}});
    print_out(fmt::format("Decisions are shown at http://127.0.0.1:{}/planner/decisions\n",
                          door->port()));
    const int signal = wait_for_end(stop, **security);
    log_info("The planner stops.", {{"signal", signal}});
    end();
    return ExitCode::kDone;
}

/// `stator planner explain`: what a running planner has decided lately, as text.
ExitCode explain(std::string url, const std::string& last, const std::string& key_file, bool json) {
    std::uint64_t n = 1;
    const auto read = std::from_chars(last.data(), last.data() + last.size(), n);
    if (!last.empty() &&
        (read.ec != std::errc{} || read.ptr != last.data() + last.size() || n == 0)) {
        print_problem("--last must be a whole number from 1, not " + config::in_quotes(last) + ".");
        return ExitCode::kUsage;
    }
    const auto key = read_key_line("--api-key-file", key_file);
    if (!key) {
        print_problem(key.error());
        return ExitCode::kUsage;
    }
    while (url.ends_with('/')) url.pop_back();
    net::HttpClientRequest request;
    request.url =
        fmt::format("{}/planner/decisions?limit={}&format={}", url, n, json ? "json" : "text");
    request.read_timeout = std::chrono::seconds(10);
    if (!key->empty()) request.headers = {{"Authorization", "Bearer " + *key}};
    const auto answer = net::http_request(request);
    if (!answer) {
        print_problem(
            fmt::format("{}: {} Is a planner running there? (stator serve --planner act, "
                        "or stator planner)",
                        url, answer.error().message));
        return ExitCode::kFailed;
    }
    if (answer->status != 200) {
        codec::JsonDocument document;
        const auto root = document.parse(answer->body);
        const auto message = root ? root->find("error").find("message").as_string() : std::nullopt;
        print_problem(fmt::format("{} answers with status {}{}", url, answer->status,
                                  message ? ": " + std::string(*message) : ""));
        return ExitCode::kFailed;
    }
    print_out(answer->body);
    if (!answer->body.ends_with('\n')) print_out("\n");
    return ExitCode::kDone;
}

}  // namespace

ExitCode run_planner(const Invocation& invocation) {
    if (invocation.args.empty() || invocation.args.front() != "explain") {
        const auto settings = command_settings("stator planner", invocation, planner_help);
        return settings ? plan(*settings) : settings.error();
    }
    CommandLine line("stator planner explain");
    std::string url = "http://127.0.0.1:8000";
    std::string last;
    std::string key_file;
    bool json = false;
    line.add_value("--url", url);
    line.add_value("--last", last);
    line.add_value("--api-key-file", key_file);
    line.add_switch("--json", json);
    const auto outcome = line.parse({invocation.args.begin() + 1, invocation.args.end()});
    if (!outcome) {
        print_problem(outcome.error());
        return ExitCode::kUsage;
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(planner_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    return explain(std::move(url), last, key_file, json);
}

}  // namespace stator::cli
