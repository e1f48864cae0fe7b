#include "stator/cli/transfer_setup.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "stator/cli/bind_guard.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

constexpr std::array kMethods{"shm", "nixl", "tcp"};

}  // namespace

Result<std::vector<protocol::Role>> roles_of(const config::Settings& settings) {
    using protocol::Role;
    constexpr std::array kAll{Role::kAggregated, Role::kPrefill, Role::kDecode, Role::kEncode};
    std::vector<Role> out;
    for (const std::string& name : settings.worker.roles) {
        const auto role =
            std::ranges::find(kAll, name, [](Role r) { return std::string(to_string(r)); });
        if (role == kAll.end()) {
            return error(ErrorCode::kInvalidArgument,
                         "--role must be aggregated, prefill, decode or encode, not {}.",
                         config::in_quotes(name));
        }
        if (std::ranges::find(out, *role) == out.end()) out.push_back(*role);
    }
    if (out.empty()) out.push_back(Role::kAggregated);
    const bool encodes = std::ranges::find(out, Role::kEncode) != out.end();
    const bool has_encoder = !settings.model.mmproj.empty();
    if (encodes && !has_encoder && settings.engine.kind == config::EngineKind::kLlama) {
        return error(ErrorCode::kInvalidArgument,
                     "A worker with --role encode needs the model's encoder: --mmproj FILE.gguf.");
    }
    if (!encodes && has_encoder && out.front() == Role::kAggregated) out.push_back(Role::kEncode);
    return out;
}

Encoding encoding_of(const config::Settings& settings) {
    const auto roles = roles_of(settings);
    if (!roles || std::ranges::find(*roles, protocol::Role::kEncode) == roles->end()) {
        return Encoding::kNone;
    }
    return roles->size() == 1 ? Encoding::kAlone : Encoding::kToo;
}

Handoffs handoffs_of(const config::Settings& settings) {
    const bool makes = !settings.model.mmproj.empty() ||
                       std::ranges::any_of(settings.worker.roles, [](const std::string& role) {
                           return role != "aggregated";
                       });
    // Engines of others hand over themselves.
    if (settings.engine.kind == config::EngineKind::kAttached) return Handoffs::kNone;
    if (makes) return Handoffs::kMade;
    // Who computes a model itself may be sent pictures that others have encoded.
    using Kind = config::EngineKind;
    const Kind kind = settings.engine.kind;
    return kind == Kind::kLlama || kind == Kind::kMock ? Handoffs::kTaken : Handoffs::kNone;
}

Result<transfer::TransferOptions> transfer_options(const config::Settings& settings,
                                                   const net::SocketAddress& beside,
                                                   const std::shared_ptr<LinkSecurity>& security) {
    const config::TransferSettings& s = settings.transfer;
    transfer::TransferOptions o;
    o.methods = s.methods;
    for (const std::string& method : s.methods) {
        if (std::ranges::find(kMethods, method) == kMethods.end()) {
            return error(ErrorCode::kInvalidArgument,
                         "--transfer must be shm, nixl or tcp, not {}.", config::in_quotes(method));
        }
    }
    if (s.methods.empty()) {
        return error(ErrorCode::kInvalidArgument, "--transfer must name a way: shm, nixl or tcp.");
    }
    o.budget_bytes = s.size.bytes;
    o.incoming_bytes = s.incoming_size.bytes;
    o.lease = s.lease;
    if (!s.listen.empty()) {
        auto address = net::parse_socket_address(s.listen);
        if (!address) {
            return error(ErrorCode::kInvalidArgument, "--transfer-listen: {}",
                         address.error().message);
        }
        if (address->kind != net::SocketAddress::Kind::kTcp) {
            return error(ErrorCode::kInvalidArgument,
                         "--transfer-listen must be HOST:PORT, not {}.",
                         config::in_quotes(s.listen));
        }
        o.listen = std::move(*address);
    } else {
        o.listen.kind = net::SocketAddress::Kind::kTcp;
        o.listen.host = beside.kind == net::SocketAddress::Kind::kTcp ? beside.host : "127.0.0.1";
        o.listen.port = 0;
    }
    if (auto ok = check_link_bind(o.listen, settings.link, settings.auth.allow_unauthenticated);
        !ok) {
        return tl::unexpected(ok.error());
    }
    o.advertise = s.advertise;
    o.tcp_connections = s.connections;
    o.checksums = s.checksums;
    o.nixl_library = s.nixl_library;
    if (security) {
        o.secret = [security] { return security->secret(); };
        if (security->tls() && security->client_tls()) {
            o.tls = [security] { return security->tls(); };
            o.tls_client = [security] { return security->client_tls(); };
        }
    }
    return o;
}

}  // namespace stator::cli
