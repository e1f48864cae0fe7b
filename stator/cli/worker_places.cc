#include "stator/cli/worker_places.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "stator/cli/attached_connector.h"
#include "stator/cli/curve_keys.h"
#include "stator/cli/transfer_setup.h"
#include "stator/cli/worker_processes.h"
#include "stator/net/http_url.h"

namespace stator::cli {
namespace {

constexpr std::string_view kOff = "off";
constexpr std::uint32_t kMaxPort = 65'535;

std::string process_name(const config::WorkerSettings& s) {
    if (!s.name.empty()) return s.name;
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) return fmt::format("worker-{}", getpid());
    return fmt::format("{:.200}-{}", host.data(), ::getpid());
}

bool replace_all(std::string& text, std::string_view what, const std::string& by) {
    bool found = false;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
        text.replace(at, what.size(), by);
        found = true;
    }
    return found;
}

/// Where events are published when nobody says: beside the link, of the same kind.
std::string beside(const net::SocketAddress& listen, const std::string& name,
                   const std::string& folder) {
    if (listen.kind == net::SocketAddress::Kind::kUnix) {
        return fmt::format("ipc://{}/{}.events", folder, name);
    }
    const bool v6 = listen.host.find(':') != std::string::npos;
    return v6 ? fmt::format("tcp://[{}]:*", listen.host) : fmt::format("tcp://{}:*", listen.host);
}

Result<std::map<std::string, std::string>> labels_of(const config::WorkerSettings& s) {
    std::map<std::string, std::string> out;
    for (const std::string& label : s.labels) {
        const auto equals = label.find('=');
        if (equals == std::string::npos || equals == 0) {
            return error(ErrorCode::kInvalidArgument, "--label must be written KEY=VALUE, not {}.",
                         label);
        }
        out[label.substr(0, equals)] = label.substr(equals + 1);
    }
    return out;
}

/// What all workers of the process have in common.
Result<worker::WorkerOptions> common_options(const config::Settings& settings,
                                             const std::shared_ptr<LinkSecurity>& security) {
    const config::WorkerSettings& s = settings.worker;
    worker::WorkerOptions o;
    auto labels = labels_of(s);
    if (!labels) return tl::unexpected(labels.error());
    o.labels = std::move(*labels);
    if (auto host = transfer::host_label(); !host.empty()) o.labels.emplace("host", host);
    // Where gateways send requests (stator epp): to the engine itself, unless something else is
    // said.
    if (settings.engine.kind == config::EngineKind::kAttached) {
        const auto url = net::parse_http_url(settings.engine.attached.front().url);
        if (url && url->address.kind == net::SocketAddress::Kind::kTcp) {
            const std::string address = net::to_string(url->address);
            o.labels.emplace("http", address.substr(address.find("//") + 2));
        }
    }
    auto roles = roles_of(settings);
    if (!roles) return tl::unexpected(roles.error());
    o.roles = std::move(*roles);
    o.claim_within = settings.transfer.timeout;
    auto connector = connector_of(settings);
    if (!connector) return tl::unexpected(connector.error());
    o.kv_method = method_of(*connector);
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
    if (settings.engine.kind == config::EngineKind::kMock) o.ranks = settings.mock.ranks;
    return o;
}

Result<void> set_place(const config::Settings& settings, const std::string& folder,
                       std::uint32_t number, worker::WorkerOptions& o) {
    const config::WorkerSettings& s = settings.worker;
    const std::uint32_t count = s.count;
    const std::string name = process_name(s);
    o.name = count == 1 ? name : fmt::format("{}-{}", name, number);
    std::string listen = fmt::format("unix:{}/{}.sock", folder, o.name);
    if (!s.listen.empty()) {
        auto own = numbered("--listen", s.listen, number, count);
        if (!own) return tl::unexpected(own.error());
        listen = std::move(*own);
    }
    auto address = net::parse_socket_address(listen);
    if (!address) return tl::unexpected(address.error());
    o.listen = std::move(*address);
    if (auto ok = check_link_bind(o.listen, settings.link, settings.auth.allow_unauthenticated);
        !ok) {
        return ok;
    }
    o.announce_folder = s.announce.empty()   ? folder
                        : s.announce == kOff ? std::string()
                                             : s.announce;
    if (const auto http = o.labels.find("http"); http != o.labels.end()) {
        auto own = numbered("--label http=", http->second, number, count);
        if (!own) return tl::unexpected(own.error());
        http->second = std::move(*own);
    }
    if (s.events.empty()) o.events_address = beside(o.listen, o.name, folder);
    const bool events = s.events != kOff;
    const std::array<std::tuple<const char*, const std::string*, std::string*>, 3> others{{
        {"--advertise", &s.advertise, &o.advertise},
        {"--events", events ? &s.events : nullptr, &o.events_address},
        {"--events-advertise", &s.events_advertise, &o.events_advertise},
    }};
    for (const auto& [flag, from, to] : others) {
        if (from == nullptr || from->empty()) continue;
        auto own = numbered(flag, *from, number, count);
        if (!own) return tl::unexpected(own.error());
        *to = std::move(*own);
    }
    return {};
}

}  // namespace

Result<std::string> numbered(const std::string& flag, std::string address, std::uint32_t number,
                             std::uint32_t count) {
    replace_all(address, "%p", std::to_string(::getpid()));
    if (replace_all(address, "%i", std::to_string(number)) || count == 1) return address;
    const auto same = [&] {
        return error(ErrorCode::kInvalidArgument,
                     "{} {} would be the same for all {} workers; write %i where their number "
                     "belongs.",
                     flag, address, count);
    };
    if (address.starts_with("unix:") || address.starts_with("ipc:")) return same();
    const auto colon = address.rfind(':');
    if (colon == std::string::npos) return same();
    const std::string_view digits = std::string_view(address).substr(colon + 1);
    if (digits == "*") return address;
    std::uint32_t port = 0;
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (ec != std::errc{} || end != digits.data() + digits.size()) return same();
    if (port == 0) return address;
    if (port > kMaxPort || port + count - 1 > kMaxPort) {
        return error(ErrorCode::kInvalidArgument, "{} {}: there are no {} ports from there on.",
                     flag, address, count);
    }
    return address.substr(0, colon + 1) + std::to_string(port + number);
}

Result<std::vector<worker::WorkerOptions>> worker_options(
    const config::Settings& settings, const std::shared_ptr<LinkSecurity>& security) {
    auto common = common_options(settings, security);
    if (!common) return tl::unexpected(common.error());
    std::string folder;
    if (settings.worker.listen.empty() || settings.worker.announce.empty()) {
        auto made = run_time_folder();
        if (!made) return tl::unexpected(made.error());
        folder = std::move(*made);
    }
    std::vector<worker::WorkerOptions> out;
    for (std::uint32_t i = 0; i < settings.worker.count; ++i) {
        out.push_back(*common);
        if (auto ok = set_place(settings, folder, i, out.back()); !ok) {
            return tl::unexpected(ok.error());
        }
    }
    return out;
}

}  // namespace stator::cli
