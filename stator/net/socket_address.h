#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::net {

/// Where a stream socket listens or connects.
struct SocketAddress {
    enum class Kind : std::uint8_t { kTcp, kUnix };
    Kind kind = Kind::kTcp;
    std::string host;        ///< TCP: name or address, IPv6 without brackets
    std::uint16_t port = 0;  ///< TCP
    std::string path;        ///< Unix: at most 107 bytes
    bool operator==(const SocketAddress&) const = default;
    auto operator<=>(const SocketAddress&) const = default;
};

/// "tcp://host:port", "host:port", "[::1]:port", "unix:/path". kInvalidArgument says what is wrong
/// and shows the forms there are.
[[nodiscard]] Result<SocketAddress> parse_socket_address(std::string_view text);
/// "tcp://host:port" or "unix:/path"; parse_socket_address() reads it.
[[nodiscard]] std::string to_string(const SocketAddress& address);
/// A Unix socket, "localhost", 127.0.0.0/8 or ::1: reachable from this machine alone.
[[nodiscard]] bool is_local(const SocketAddress& address);

}  // namespace stator::net
