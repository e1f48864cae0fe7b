#include "stator/net/http_url.h"

#include <algorithm>
#include <charconv>

#include "stator/net/http_names.h"

namespace stator::net {
namespace {

bool has_control_or_space(std::string_view text) {
    return std::ranges::any_of(text, [](char c) { return (c >= 0 && c <= ' ') || c == 127; });
}

bool take_scheme(std::string_view& rest, std::string_view scheme) {
    if (rest.size() < scheme.size() || !same_name(rest.substr(0, scheme.size()), scheme)) {
        return false;
    }
    rest.remove_prefix(scheme.size());
    return true;
}

/// Of a valid authority: host without brackets, port or the scheme's own.
SocketAddress address_of(std::string_view authority, std::uint16_t standard_port) {
    SocketAddress address;
    const auto bracket = authority.find(']');
    const auto colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
    address.host = bracket == std::string_view::npos ? authority.substr(0, colon)
                                                     : authority.substr(1, bracket - 1);
    address.port = standard_port;
    if (colon != std::string_view::npos) {
        const std::string_view port = authority.substr(colon + 1);
        std::from_chars(port.data(), port.data() + port.size(), address.port);
    }
    return address;
}

}  // namespace

Result<HttpUrl> parse_http_url(std::string_view text) {
    HttpUrl url;
    if (text.starts_with("unix:")) {
        auto address = parse_socket_address(text);
        if (!address) return tl::unexpected<Error>(std::move(address.error()));
        url.address = std::move(*address);
        url.authority = "localhost";
        url.path = "/";
        return url;
    }
    std::string_view rest = text;
    url.tls = take_scheme(rest, "https://");
    if (!url.tls && !take_scheme(rest, "http://")) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' is not a URL of the form http://host:port/path", text);
    }
    if (has_control_or_space(text)) {
        return error(ErrorCode::kInvalidArgument,
                     "the URL '{}' has white space or control characters", text);
    }
    const auto end = std::min(rest.find_first_of("/?#"), rest.size());
    url.authority = rest.substr(0, end);
    url.path = rest.substr(end, rest.find('#') - end);
    if (!url.path.starts_with('/')) url.path.insert(0, "/");
    if (!is_valid_host(url.authority)) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' in the URL '{}' is not a host with an optional port", url.authority,
                     text);
    }
    url.address = address_of(url.authority, url.tls ? 443 : 80);
    return url;
}

}  // namespace stator::net
