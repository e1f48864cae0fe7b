#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"
#include "stator/transfer/wire.h"

namespace stator::transfer {

/// Whom a Unix socket's abstract name reaches: processes of one boot and one network namespace.
/// "BOOT-ID/NAMESPACE", read from /proc once; empty where that is not to be had.
[[nodiscard]] const std::string& host_identity();

/// The address of method "shm": "1;HOST-IDENTITY;PLANE".
struct ShmPlace {
    std::string host;
    PlaneId plane{};
    bool operator==(const ShmPlace&) const = default;
};
[[nodiscard]] std::string to_string(const ShmPlace& place);
[[nodiscard]] Result<ShmPlace> parse_shm_place(std::string_view text);
/// The abstract name of a plane's Unix socket, without the zero byte.
[[nodiscard]] std::string socket_name(const PlaneId& plane);

/// The address of methods "tcp" and "nixl": "1;PLANE;plain|tls;HOST:PORT".
struct TcpPlace {
    PlaneId plane{};
    bool tls = false;
    net::SocketAddress address;
    bool operator==(const TcpPlace&) const = default;
};
[[nodiscard]] std::string to_string(const TcpPlace& place);
[[nodiscard]] Result<TcpPlace> parse_tcp_place(std::string_view text);

}  // namespace stator::transfer
