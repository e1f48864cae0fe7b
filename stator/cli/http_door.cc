#include "stator/cli/http_door.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "stator/base/log.h"
#include "stator/cli/bind_guard.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/media_setup.h"
#include "stator/cli/text_file.h"

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

frontend::FrontendOptions frontend_options(const config::Settings& s, ApiKeys keys) {
    frontend::FrontendOptions o;
    o.api_keys = std::move(keys.keys);
    o.key_tenants = std::move(keys.tenants);
    o.key_trusted = std::move(keys.trusted);
    o.cors_origins = s.server.cors_origins;
    o.max_choices = s.limits.max_choices;
    o.max_inflight = s.limits.max_inflight;
    o.max_media_items = s.media.max_items;
    o.request_timeout = s.limits.request_timeout;
    o.access_log = s.log.access;
    o.trust_hints = trust_of(s.router.hints).value_or(frontend::TrustHints::kNobody);
    return o;
}

}  // namespace

Result<ApiKeys> read_door_keys(const config::Settings& settings) {
    ApiKeys keys;
    if (!settings.auth.api_key_file.empty()) {
        auto read = read_api_keys(settings.auth.api_key_file);
        if (!read) return tl::unexpected(read.error());
        for (const std::string& warning : read->warnings) log_warn(warning);
        keys = std::move(*read);
    }
    const auto bind =
        check_bind(settings.server.host, !keys.keys.empty(), settings.auth.allow_unauthenticated);
    if (!bind) return tl::unexpected(bind.error());
    return keys;
}

HttpDoor::HttpDoor(const config::Settings& settings, ApiKeys keys, std::size_t threads,
                   metrics::Registry& registry)
    : settings_(settings),
      tenant_weights_(std::move(keys.weights)),
      loops_(threads, "http"),
      frontend_(frontend_options(settings, std::move(keys)), loops_, registry),
      server_(loops_, http_limits(settings.limits), frontend_.handler(),
              frontend::Frontend::error_body()) {
    // A port of an earlier run must not be taken for this one's.
    if (!settings.server.port_file.empty()) ::unlink(settings.server.port_file.c_str());
    frontend_.observe_server([this] { return server_.stats(); });
    loops_.start();
}

void HttpDoor::take_media(metrics::Registry& registry) {
    if (settings_.media.max_items == 0) return;
    auto loader = make_media_loader(settings_.media, registry);
    if (!loader) {
        return log_info("Messages with images are refused.", {{"reason", loader.error().message}});
    }
    media_ = std::move(*loader);
    frontend_.set_media(media_);
}

Result<void> HttpDoor::listen() {
    const config::ServerSettings& s = settings_.server;
    auto done = server_.listen(s.host, static_cast<std::uint16_t>(s.port));
    if (!done) return done;
    if (!s.port_file.empty()) {
        done =
            write_file_at_once("The port file", s.port_file, fmt::format("{}\n", server_.port()));
        if (!done) return done;
    }
    frontend_.set_ready(true);
    return {};
}

void HttpDoor::stop_serving(Deadline deadline) {
    frontend_.set_ready(false);
    server_.stop(deadline);
}

void HttpDoor::stop_loops() {
    loops_.stop();
    if (!settings_.server.port_file.empty()) ::unlink(settings_.server.port_file.c_str());
}

}  // namespace stator::cli
