#include "stator/net/socket_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace stator::net {
namespace {

constexpr std::size_t kMaxHost = 253;  // RFC 1035, without the dot at the end
constexpr std::size_t kMaxPath = 107;  // sockaddr_un: 108 with the zero
constexpr std::string_view kForms =
    R"(write it as "tcp://host:port", "host:port", "[::1]:port" or "unix:/path")";

bool is_host_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

bool is_ipv6(const std::string& host) {
    const std::string address = host.substr(0, host.find('%'));  // a zone may follow
    in6_addr ignored{};
    return ::inet_pton(AF_INET6, address.c_str(), &ignored) == 1;
}

tl::unexpected<Error> bad(std::string_view text, std::string_view what) {
    return error(ErrorCode::kInvalidArgument, "'{}' is no socket address: {}; {}",
                 text.substr(0, 128), what, kForms);
}

Result<SocketAddress> parse_unix(std::string_view text, std::string_view path) {
    if (!path.starts_with('/')) return bad(text, "the path after unix: must begin with /");
    if (path.size() > kMaxPath) {
        return bad(text, fmt::format("the path has {} bytes and a socket's may have {}",
                                     path.size(), kMaxPath));
    }
    if (path.contains('\0')) return bad(text, "the path has a zero byte");
    if (path.ends_with('/')) return bad(text, "the path names a folder");
    SocketAddress address;
    address.kind = SocketAddress::Kind::kUnix;
    address.path = path;
    return address;
}

Result<std::uint16_t> parse_port(std::string_view text, std::string_view digits) {
    std::uint16_t port = 0;
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (digits.empty() || failed != std::errc() || end != digits.data() + digits.size()) {
        return bad(text, fmt::format("'{}' is no port (0 to 65535)", digits.substr(0, 16)));
    }
    return port;
}

}  // namespace

Result<SocketAddress> parse_socket_address(std::string_view text) {
    if (text.starts_with("unix:")) return parse_unix(text, text.substr(5));
    std::string_view rest = text;
    if (rest.starts_with("tcp://")) rest.remove_prefix(6);
    if (rest.contains('/')) return bad(text, "a TCP address has no path");

    SocketAddress address;
    const bool bracketed = rest.starts_with('[');
    const std::size_t colon = bracketed ? rest.find("]:") + 1 : rest.rfind(':');
    if (colon == std::string_view::npos || (bracketed && colon == 0)) {
        return bad(text, "there is no port");
    }
    address.host = bracketed ? rest.substr(1, colon - 2) : rest.substr(0, colon);
    if (address.host.empty()) return bad(text, "there is no host");
    if (bracketed) {
        if (address.host.contains('\0') || !is_ipv6(address.host)) {
            return bad(text, "in the brackets there is no IPv6 address");
        }
    } else if (address.host.contains(':')) {
        return bad(text, "an IPv6 address needs brackets");
    } else if (address.host.size() > kMaxHost || !std::ranges::all_of(address.host, is_host_char)) {
        return bad(text, "the host is neither a name nor an address");
    }
    const auto port = parse_port(text, rest.substr(colon + 1));
    if (!port) return tl::unexpected<Error>(port.error());
    address.port = *port;
    return address;
}

std::string to_string(const SocketAddress& address) {
    if (address.kind == SocketAddress::Kind::kUnix) return "unix:" + address.path;
    const std::string port = std::to_string(address.port);
    if (address.host.contains(':')) return "tcp://[" + address.host + "]:" + port;
    return "tcp://" + address.host + ":" + port;
}

bool is_local(const SocketAddress& address) {
    if (address.kind == SocketAddress::Kind::kUnix || address.host == "localhost") return true;
    in_addr v4{};
    if (::inet_pton(AF_INET, address.host.c_str(), &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    in6_addr v6{};
    return ::inet_pton(AF_INET6, address.host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace stator::net
