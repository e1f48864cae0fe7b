#include "stator/cli/relay_front.h"

#include <utility>

#include "stator/cli/text_file.h"
#include "stator/net/http_url.h"

namespace stator::cli {
namespace {

Result<frontend::RelayOptions> relay_options(const config::FleetSettings& settings) {
    frontend::RelayOptions o;
    for (const std::string& text : settings.upstreams) {
        auto url = net::parse_http_url(text);
        if (!url) return error(ErrorCode::kInvalidArgument, "--upstream: {}", url.error().message);
        o.upstreams.push_back(std::move(*url));
    }
    auto key = read_key_line("--upstream-key-file", settings.upstream_key_file);
    if (!key) return tl::unexpected(key.error());
    o.key = *std::move(key);
    return o;
}

}  // namespace

Result<void> check_upstreams(const config::FleetSettings& settings) {
    if (auto ok = relay_options(settings); !ok) return tl::unexpected(ok.error());
    return {};
}

Result<std::shared_ptr<frontend::Relay>> start_relay(const config::FleetSettings& settings,
                                                     bool door_has_keys, HttpDoor& door,
                                                     metrics::Registry& registry) {
    if (settings.upstreams.empty()) return nullptr;
    auto options = relay_options(settings);
    if (!options) return tl::unexpected(options.error());
    options->pass_authorization = !door_has_keys;
    auto relay = frontend::Relay::start(*std::move(options), door.loops(), registry);
    door.frontend().set_relay(relay);
    return relay;
}

}  // namespace stator::cli
