#pragma once

#include <memory>

#include "stator/base/error.h"
#include "stator/frontend/nvext.h"
#include "stator/net/http_server.h"
#include "stator/protocol/generate.h"

namespace stator::frontend {

/// What headers and body of a request say of its routing.
struct RequestHints {
    std::shared_ptr<protocol::RouteHints> hints;  ///< null: nothing
    std::int32_t priority = 0;
    std::string tenant;            ///< for fair shares; empty: none is named
    std::uint64_t cache_salt = 0;  ///< prefixes are shared among equal ones; 0 = none given
};

/// Reads x-stator-session, x-stator-session-hard, x-stator-worker, x-stator-rank, x-stator-advice,
/// x-stator-priority, x-stator-tenant, x-stator-require, x-stator-prefer, x-stator-tolerate (lists
/// with commas), x-stator-expected-output and x-stator-explain, and what NVIDIA Dynamo calls them:
/// x-dynamo-session-id, x-dynamo-worker-instance-id, x-dynamo-dp-rank, x-dynamo-request-priority,
/// x-dynamo-request-strict-priority, and x-tenant-id, which keeps the prefixes of one tenant from
/// others, and where x-stator-tenant says nothing names it. What the headers do not say is taken
/// from the body. Only sessions and salts are taken from callers that are not trusted; their other
/// hints are passed over. kInvalidArgument: a value that is none, with the header as its param.
[[nodiscard]] Result<RequestHints> read_route_hints(const net::HttpRequest& request,
                                                    const BodyHints& body, bool trusted);

/// Whether the peer is this machine: a Unix socket or a loopback address.
[[nodiscard]] bool is_local_peer(std::string_view peer);

}  // namespace stator::frontend
