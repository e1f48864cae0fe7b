#include "stator/cli/worker_door.h"

#include <fmt/format.h>

#include <utility>

#include "stator/base/clock.h"
#include "stator/cli/bind_guard.h"
#include "stator/codec/json_writer.h"
#include "stator/net/socket_address.h"

namespace stator::cli {
namespace {

constexpr std::string_view kJson = "application/json";

std::string health_json(const protocol::WorkerInfo& info, std::string_view status,
                        const std::vector<std::string>& concerns) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("status").string(status).key("worker").string(info.name);
    w.key("incarnation").string(fmt::format("{:016x}", info.incarnation.value));
    w.key("version").string(info.version).key("model").string(info.card.name);
    w.key("roles").begin_array();
    for (const protocol::Role role : info.roles) w.string(to_string(role));
    w.end_array();
    if (info.loading) w.key("ready_in_ms").number(info.ready_in_ms);
    if (!concerns.empty()) {
        w.key("concerns").begin_array();
        for (const std::string& concern : concerns) w.string(concern);
        w.end_array();
    }
    w.end_object();
    return out;
}

void answer(net::HttpExchange& exchange, const protocol::WorkerInfo& info,
            const std::function<std::vector<std::string>()>& ask_concerns,
            metrics::Registry& registry, EncoderRegistry* encoders) {
    const net::HttpRequest& request = exchange.request();
    if (encoders != nullptr && encoders->answer(exchange)) return;
    if (request.method != "GET" && request.method != "HEAD") {
        exchange.add_header("Allow", "GET, HEAD");
        return exchange.respond(405, kJson, R"({"error":{"message":"only GET is taken here"}})");
    }
    if (request.path == "/live") return exchange.respond(200, kJson, R"({"status":"live"})");
    if (request.path == "/metrics") {
        return exchange.respond(200, "text/plain; version=0.0.4; charset=utf-8", registry.render());
    }
    if (request.path == "/health") {
        const auto concerns = ask_concerns ? ask_concerns() : std::vector<std::string>{};
        const std::string_view status = info.draining       ? "draining"
                                        : !concerns.empty() ? "degraded"
                                        : info.loading      ? "loading"
                                                            : "ready";
        return exchange.respond(info.draining || info.loading ? 503 : 200, kJson,
                                health_json(info, status, concerns));
    }
    exchange.respond(404, kJson,
                     R"({"error":{"message":"a worker shows /health, /live and /metrics"}})");
}

net::HttpErrorBody error_body() {
    return [](int /*status*/, std::string_view message) {
        std::string body;
        codec::JsonWriter w(body);
        w.begin_object().key("error").begin_object().key("message").string(message);
        w.end_object().end_object();
        return std::pair<std::string, std::string>(kJson, std::move(body));
    };
}

}  // namespace

WorkerDoor::WorkerDoor(std::function<protocol::WorkerInfo()> info,
                       std::function<std::vector<std::string>()> concerns,
                       metrics::Registry& registry, runtime::LoopPool& loops,
                       std::shared_ptr<EncoderRegistry> encoders)
    : server_(
          loops, net::HttpLimits{},
          [info = std::move(info), concerns = std::move(concerns), encoders = std::move(encoders),
           &registry](std::shared_ptr<net::HttpExchange> exchange) {
              answer(*exchange, info(), concerns, registry, encoders.get());
          },
          error_body()) {}

WorkerDoor::~WorkerDoor() {
    server_.stop(Deadline::after(Clock::real().now(), std::chrono::seconds(1)));
}

Result<std::unique_ptr<WorkerDoor>> WorkerDoor::open(
    const std::string& address, bool allow_unauthenticated,
    std::function<protocol::WorkerInfo()> info, metrics::Registry& registry,
    runtime::LoopPool& loops, std::function<std::vector<std::string>()> concerns,
    std::shared_ptr<EncoderRegistry> encoders) {
    auto where = net::parse_socket_address(address);
    if (!where) return tl::unexpected(where.error());
    if (where->kind != net::SocketAddress::Kind::kTcp) {
        return error(ErrorCode::kInvalidArgument, "--worker-http takes HOST:PORT, not {}.",
                     address);
    }
    if (!is_loopback(where->host) && !allow_unauthenticated) {
        return error(ErrorCode::kInvalidArgument,
                     "Showing health and metrics on {} to other machines needs "
                     "--allow-unauthenticated.",
                     address);
    }
    std::unique_ptr<WorkerDoor> door(
        new WorkerDoor(std::move(info), std::move(concerns), registry, loops, std::move(encoders)));
    if (auto ok = door->server_.listen(where->host, where->port); !ok) {
        return tl::unexpected(ok.error());
    }
    return door;
}

}  // namespace stator::cli
