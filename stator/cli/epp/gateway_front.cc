#include "stator/cli/epp/gateway_front.h"

#include <charconv>
#include <utility>

#include "stator/cli/text_file.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

Result<std::pair<std::string, std::int32_t>> read_objective(const std::string& text) {
    const auto equals = text.rfind('=');
    std::int32_t priority = 0;
    if (equals != std::string::npos && equals != 0) {
        const char* end = text.data() + text.size();
        const auto read = std::from_chars(text.data() + equals + 1, end, priority);
        if (read.ec == std::errc{} && read.ptr == end) {
            return std::pair(text.substr(0, equals), priority);
        }
    }
    return error(ErrorCode::kInvalidArgument,
                 "--gateway-objective must be written NAME=PRIORITY with a whole number, not {}.",
                 config::in_quotes(text));
}

gateway::FromProxy::Modes modes_of(const config::GatewaySettings& s) {
    return {static_cast<gateway::BodyMode>(s.request_bodies),
            static_cast<gateway::BodyMode>(s.response_bodies)};
}

}  // namespace

Result<GatewayFront::Options> GatewayFront::read(const config::Settings& settings) {
    const config::GatewaySettings& s = settings.gateway;
    Options o;
    o.picker.fallbacks = s.fallbacks;
    o.picker.stator_hints =
        s.hints == config::PodHints::kStator || s.hints == config::PodHints::kBoth;
    o.picker.dynamo_hints =
        s.hints == config::PodHints::kDynamo || s.hints == config::PodHints::kBoth;
    // Whoever is local here is the gateway, and its clients are not.
    o.picker.trust_hints = settings.router.hints == "everybody";
    o.picker.sheddable.queue_s = to_seconds(settings.router.hold);
    for (const std::string& text : s.objectives) {
        auto objective = read_objective(text);
        if (!objective) return tl::unexpected(objective.error());
        o.picker.objectives.insert_or_assign(std::move(objective->first), objective->second);
    }
    o.server.listen = s.listen;
    o.server.exchange.max_body_bytes = settings.limits.max_body_size.bytes;
    o.server.exchange.modes = modes_of(s);
    o.server.max_kept_bytes = settings.limits.max_buffered_bodies.bytes;
    if (s.certificate_file.empty() != s.key_file.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "--gateway-certificate-file and --gateway-key-file go together.");
    }
    constexpr std::size_t kMaxPemBytes = 1024 * 1024;
    for (const auto& [what, from, to] :
         {std::tuple{"The gateway's certificate file", &s.certificate_file, &o.server.certificate},
          std::tuple{"The gateway's key file", &s.key_file, &o.server.key}}) {
        if (from->empty()) continue;
        auto text = read_text_file(what, *from, kMaxPemBytes);
        if (!text) return tl::unexpected(text.error());
        *to = std::move(*text);
    }
    return o;
}

Result<std::unique_ptr<GatewayFront>> GatewayFront::start(Options options,
                                                          const config::Settings& settings,
                                                          FleetFront& fleet, HttpDoor& door,
                                                          metrics::Registry& registry) {
    gateway::FleetPicker::Sources sources;
    sources.models = [&frontend = door.frontend()] { return frontend.models(); };
    sources.router = [&fleet](std::string_view pool) { return fleet.router_of(pool); };
    std::unique_ptr<GatewayFront> made(new GatewayFront);
    made->picker_ = std::make_shared<gateway::FleetPicker>(std::move(options.picker),
                                                           std::move(sources), registry);
    fleet.fleet().watch([picker = made->picker_, port = settings.gateway.target_port](
                            const std::shared_ptr<const fleet::FleetView>& view) {
        picker->set_endpoints(std::make_shared<gateway::Endpoints>(*view, port));
    });
    auto server =
        gateway::start_ext_proc_server(std::move(options.server), *made->picker_, registry);
    if (!server) return tl::unexpected(server.error());
    made->server_ = std::move(*server);
    return made;
}

}  // namespace stator::cli
