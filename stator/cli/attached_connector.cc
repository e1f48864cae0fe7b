#include "stator/cli/attached_connector.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/cli/attached_media.h"
#include "stator/config/value.h"
#include "stator/engine/probe/engine_client.h"
#include "stator/net/socket_address.h"

namespace stator::cli {
namespace {

using engine::EngineKind;
using engine::KvConnector;

/// SGLang's and Mooncake's own.
constexpr std::uint16_t kUsualBootstrapPort = 8998;

bool has_role(const config::Settings& settings, std::string_view role) {
    return std::ranges::find(settings.worker.roles, role) != settings.worker.roles.end();
}

/// Where others meet an engine that computes prompts.
Result<engine::MeetingPlace> meeting_place(const config::EngineSettings& s,
                                           const engine::FoundEngine& found,
                                           const engine::AttachOptions& options) {
    engine::MeetingPlace out;
    net::SocketAddress own;
    own.host = options.url.address.host;
    out.host = options.url.address.host;
    out.port = static_cast<std::uint16_t>(found.bootstrap_port.value_or(kUsualBootstrapPort));
    if (!s.bootstrap.empty()) {
        const auto address = net::parse_socket_address(s.bootstrap);
        if (!address || address->kind != net::SocketAddress::Kind::kTcp || address->port == 0) {
            return error(ErrorCode::kInvalidArgument,
                         "--engine-bootstrap must be written HOST:PORT, not {}.",
                         config::in_quotes(s.bootstrap));
        }
        out.host = address->host;
        out.port = address->port;
    } else if (net::is_local(own)) {
        log_info(
            "Engines that decode are told to meet this one on this machine; for others say where "
            "with --engine-bootstrap HOST:PORT.",
            {{"host", out.host}, {"port", out.port}});
    }
    return out;
}

/// By rank.
Result<std::vector<std::string>> mooncake_engines(const engine::MeetingPlace& place,
                                                  std::uint32_t ranks) {
    const bool v6 = place.host.find(':') != std::string::npos;
    const std::string url = v6 ? fmt::format("http://[{}]:{}", place.host, place.port)
                               : fmt::format("http://{}:{}", place.host, place.port);
    auto parsed = net::parse_http_url(url);
    if (!parsed) return tl::unexpected(parsed.error());
    auto client = engine::EngineClient::open(std::move(*parsed), {});
    if (!client) return tl::unexpected(client.error());
    const engine::EngineAnswer answer = (*client)->ask("/query");
    if (answer.status != 200) {
        return error(ErrorCode::kUnavailable,
                     "Mooncake's bootstrap server does not answer {}/query ({}); where it is says "
                     "--engine-bootstrap HOST:PORT.",
                     url, answer.status == 0 ? answer.body : std::to_string(answer.status));
    }
    std::vector<std::string> out;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        auto id = engine::read_mooncake_engine(answer.body, rank);
        if (!id) return tl::unexpected(id.error());
        out.push_back(std::move(*id));
    }
    return out;
}

}  // namespace

Result<KvConnector> connector_of(const config::Settings& settings) {
    const config::EngineSettings& s = settings.engine;
    if (s.kind != config::EngineKind::kAttached || s.attached.size() != 1 ||
        only_encodes(settings)) {
        return KvConnector::kNone;
    }
    const auto kind = engine::engine_kind(s.attached.front().kind);
    const bool split = has_role(settings, "prefill") || has_role(settings, "decode");
    if (!kind || (!split && s.connector.empty())) return KvConnector::kNone;
    if (*kind == EngineKind::kVllm && s.connector.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "A vLLM with --role prefill or decode hands its KV over by a connector of its "
                     "own: say with --engine-connector which its --kv-transfer-config names (nixl, "
                     "shared or mooncake).");
    }
    // The others that compute whole requests were started for nothing else.
    if (*kind != EngineKind::kVllm && !split) return KvConnector::kNone;
    const auto connector = engine::kv_connector(*kind, s.connector);
    if (connector) return *connector;
    return error(ErrorCode::kInvalidArgument,
                 "--engine-connector must be nixl, shared or mooncake, not {}.",
                 config::in_quotes(s.connector));
}

Result<void> set_connector(const config::Settings& settings, const engine::FoundEngine& found,
                           engine::AttachOptions& options) {
    const auto connector = connector_of(settings);
    if (!connector) return tl::unexpected(connector.error());
    options.connector = *connector;
    if (*connector != KvConnector::kNone || !settings.engine.connector.empty()) {
        // Into the pool of those that it stands beside.
        const auto of_pool = engine::kv_connector(found.kind, settings.engine.connector);
        options.kv_layout = kv_layout_of(of_pool.value_or(KvConnector::kNone), found.version);
    }
    if (*connector == KvConnector::kNone) return {};
    if (!found.role.empty() && !has_role(settings, found.role)) {
        return error(ErrorCode::kInvalidArgument,
                     "The engine at {} was started to {} alone; its worker needs --role {}.",
                     options.probe.url, found.role, found.role);
    }
    options.decodes_only = found.role == "decode";
    // Half an engine gives no token for the asking.
    if (!found.role.empty()) options.canary_every = {};
    if (!is_early(*connector) || !has_role(settings, "prefill")) return {};
    auto place = meeting_place(settings.engine, found, options);
    if (!place) return tl::unexpected(place.error());
    if (*connector == KvConnector::kVllmMooncake) {
        auto ids = mooncake_engines(*place, found.ranks);
        if (!ids) return tl::unexpected(ids.error());
        options.meeting_ids = std::move(*ids);
    }
    options.meeting = std::move(*place);
    return {};
}

}  // namespace stator::cli
