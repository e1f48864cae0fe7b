#pragma once

#include <memory>

#include "stator/base/error.h"
#include "stator/net/http_server.h"
#include "stator/protocol/generate.h"

namespace stator::frontend {

/// What the headers of a request say of its routing.
struct HintsOfHeaders {
    std::shared_ptr<protocol::RouteHints> hints;  ///< null: nothing
    std::int32_t priority = 0;
    std::string tenant;  ///< empty: none is named
};

/// Reads x-stator-session, x-stator-session-hard, x-stator-worker, x-stator-rank,
/// x-stator-priority, x-stator-tenant, x-stator-require, x-stator-tolerate (lists with commas),
/// x-stator-expected-output and x-stator-explain, and what NVIDIA Dynamo calls them:
/// x-dynamo-session-id, x-dynamo-worker-instance-id, x-dynamo-dp-rank, x-dynamo-request-priority.
/// Only a session is taken from callers that are not trusted; their other hints are passed over.
/// kInvalidArgument: a value that is none, with the header as its param.
[[nodiscard]] Result<HintsOfHeaders> read_route_hints(const net::HttpRequest& request,
                                                      bool trusted);

/// Whether the peer is this machine: a Unix socket or a loopback address.
[[nodiscard]] bool is_local_peer(std::string_view peer);

}  // namespace stator::frontend
