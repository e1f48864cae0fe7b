#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/media/ip_address.h"

namespace stator::media {

/// Where a client's URL leads. What is checked and what is connected to are both read from this and
/// never from the text again, so no two parsers can disagree about it.
struct MediaUrl {
    bool tls = false;
    std::string host;                  ///< lower case, without brackets
    std::optional<IpAddress> address;  ///< where the host is one
    std::uint16_t port = 0;
    std::string authority;  ///< for the Host header
    std::string target;     ///< path and query, from '/' on
    bool operator==(const MediaUrl&) const = default;
};

inline constexpr std::size_t kMaxUrlBytes = 8192;

/// "https://host[:port]/…" or "http://…" of printable ASCII, narrower than RFC 3986 where leniency
/// lets parsers disagree: no backslash, no user name, no IPv6 zone, no trailing dot, no empty port,
/// no host that is a number in any other way than a dotted quad, no name beyond ASCII (IDN must be
/// written as xn--…). kInvalidArgument says what is wrong.
[[nodiscard]] Result<MediaUrl> parse_media_url(std::string_view text);

/// What a Location header means for an answer from `from`: a whole URL, "//host/path" or "/path".
[[nodiscard]] Result<MediaUrl> parse_redirect(const MediaUrl& from, std::string_view location);

}  // namespace stator::media
