#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"

namespace stator::net {

/// Where a URL leads.
struct HttpUrl {
    bool tls = false;
    SocketAddress address;
    std::string authority;  ///< for the Host header
    std::string path;       ///< with the query, from '/' on; a fragment is left out
    bool operator==(const HttpUrl&) const = default;
};

/// "http://host[:port]/path", "https://…", "unix:/path/of/the/socket" (path "/"). kInvalidArgument
/// says what is wrong.
[[nodiscard]] Result<HttpUrl> parse_http_url(std::string_view text);

}  // namespace stator::net
