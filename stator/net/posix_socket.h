#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "stator/base/error.h"

// What this room's sources ask of the system's sockets: listening, names, reasons.
namespace stator::net {

/// "Connection refused" for an errno.
[[nodiscard]] std::string system_message(int error);

/// "127.0.0.1:51234", "[::1]:51234", "unix".
[[nodiscard]] std::string printed(const sockaddr_storage& address, socklen_t length);
[[nodiscard]] std::string peer_of(int fd);
/// 0 for a Unix socket.
[[nodiscard]] std::uint16_t bound_port(int fd);

/// A non-blocking listening socket on the first of the host's addresses that can be bound.
/// kInvalidArgument: not a known name; kUnavailable with the system's reason.
[[nodiscard]] Result<int> listen_tcp(const std::string& host, std::uint16_t port);

/// The same on a Unix socket's path, mode 0600. A stale file, on which nobody listens, is replaced.
[[nodiscard]] Result<int> listen_unix(const std::string& path);

}  // namespace stator::net
