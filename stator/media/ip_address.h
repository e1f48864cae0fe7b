#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stator::media {

/// An IPv4 or IPv6 address.
struct IpAddress {
    bool v6 = false;
    std::array<std::uint8_t, 16> bytes{};  ///< network order; of IPv4 the first four
    bool operator==(const IpAddress&) const = default;
};

/// "192.0.2.7" (four decimal numbers without leading zeros, nothing else) or IPv6 as RFC 4291
/// writes it, without brackets and zone.
[[nodiscard]] std::optional<IpAddress> parse_ip_address(std::string_view text);
[[nodiscard]] std::string to_string(const IpAddress& address);

/// Why an address is none of the public internet's, in a word or two ("private", "loopback"); empty
/// where it is public. After IANA's special-purpose registries (RFC 6890), and cloud providers'
/// own services. IPv4 inside of IPv6 (mapped, NAT64) counts as what it is; what tunnels elsewhere
/// (6to4, Teredo) is not public.
[[nodiscard]] std::string_view why_not_public(const IpAddress& address);

}  // namespace stator::media
