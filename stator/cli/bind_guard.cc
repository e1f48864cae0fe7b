#include "stator/cli/bind_guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <string>

#include "stator/config/value.h"

namespace stator::cli {

bool is_loopback(std::string_view host) {
    if (host == "localhost") return true;
    std::string address(host);
    if (address.size() > 2 && address.front() == '[' && address.back() == ']') {
        address = address.substr(1, address.size() - 2);
    } else {
        in_addr v4{};
        // inet_pton takes four decimal numbers only, so that "127.1" or "0177.0.0.1" can't mean one
        // thing here and another to the resolver.
        if (inet_pton(AF_INET, address.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
    }
    in6_addr v6{};
    if (inet_pton(AF_INET6, address.c_str(), &v6) != 1) return false;
    return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

Result<void> check_bind(std::string_view host, bool has_api_keys, bool allow_unauthenticated) {
    if (is_loopback(host) || has_api_keys || allow_unauthenticated) return {};
    return error(
        ErrorCode::kInvalidArgument,
        "Listening on {} would let anyone who can reach this machine use the model: give API "
        "keys with --api-key-file FILE, or say --allow-unauthenticated if that is meant.",
        config::in_quotes(host));
}

}  // namespace stator::cli
