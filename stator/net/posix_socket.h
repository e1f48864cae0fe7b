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

/// What became of asking a non-blocking listening socket for its next client.
struct Accepted {
    enum class What : std::uint8_t {
        kClient,     ///< `fd` is its non-blocking socket, the caller's to close
        kNobody,     ///< none is waiting
        kExhausted,  ///< this process or machine is out of a resource (`error`): try again later
        kGone,       ///< one was there and has left; the next may be asked for
    };
    What what = What::kNobody;
    int fd = -1;
    int error = 0;
    sockaddr_storage address{};
    socklen_t length = sizeof(sockaddr_storage);
};
[[nodiscard]] Accepted accept_client(int listener);

}  // namespace stator::net
