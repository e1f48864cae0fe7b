#include "stator/media/media_url.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace stator::media {
namespace {

constexpr std::size_t kMaxHost = 253;
constexpr std::size_t kMaxLabel = 63;

template <typename... Args>
tl::unexpected<Error> bad(ErrorFormat format, Args&&... args) {
    return error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool take(std::string_view& rest, std::string_view word) {
    if (rest.size() < word.size() ||
        !std::ranges::equal(rest.substr(0, word.size()), word, {}, lower)) {
        return false;
    }
    rest.remove_prefix(word.size());
    return true;
}

bool is_label(std::string_view label) {
    const auto known = [](char c) {
        return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '_';
    };
    return !label.empty() && label.size() <= kMaxLabel && label.front() != '-' &&
           label.back() != '-' && std::ranges::all_of(label, known);
}

/// Other parsers read hosts such as 2130706433, 0x7f.1 and 0177.0.0.1 as IPv4 (WHATWG: "ends in a
/// number").
bool ends_in_number(std::string_view host) {
    const std::string_view last = host.substr(host.rfind('.') + 1);
    return std::ranges::all_of(last, is_digit) || last.starts_with("0x");
}

Result<void> read_name(std::string_view host, MediaUrl& out) {
    if (host.empty() || host.size() > kMaxHost) {
        return bad("the URL has no host, or one of more than {} characters", kMaxHost);
    }
    out.host = host;
    std::ranges::transform(out.host, out.host.begin(), lower);
    if (out.host.ends_with('.')) return bad("the URL's host ends with a dot");
    if (ends_in_number(out.host)) {
        out.address = parse_ip_address(out.host);
        if (!out.address || out.address->v6) {
            return bad("the URL's host is a number that is no IPv4 address such as 192.0.2.7");
        }
        return {};
    }
    for (std::string_view rest = out.host;;) {
        const std::size_t dot = rest.find('.');
        if (!is_label(rest.substr(0, dot))) {
            return bad(
                "the URL's host is no name of letters, digits, hyphens and dots (write "
                "others as xn--…)");
        }
        if (dot == std::string_view::npos) return {};
        rest.remove_prefix(dot + 1);
    }
}

Result<void> read_bracketed(std::string_view inside, MediaUrl& out) {
    const auto address = parse_ip_address(inside);
    if (!address || !address->v6) {
        return bad("the URL's host is no IPv6 address such as [2001:db8::1], without a zone");
    }
    out.address = address;
    out.host = to_string(*address);
    return {};
}

Result<void> read_authority(std::string_view authority, MediaUrl& out) {
    if (authority.find('@') != std::string_view::npos) {
        return bad("the URL has a user name or an @ in its host, which is not allowed");
    }
    std::string_view port;
    bool has_port = false;
    Result<void> host;
    if (authority.starts_with('[')) {
        const std::size_t end = authority.find(']');
        if (end == std::string_view::npos) return bad("the URL's host lacks a ]");
        host = read_bracketed(authority.substr(1, end - 1), out);
        port = authority.substr(end + 1);
        has_port = !port.empty();
        if (has_port && !port.starts_with(':')) return bad("the URL has text behind its ]");
    } else {
        const std::size_t colon = authority.find(':');
        host = read_name(authority.substr(0, colon), out);
        has_port = colon != std::string_view::npos;
        if (has_port) port = authority.substr(colon);
    }
    if (!host) return host;
    out.port = out.tls ? 443 : 80;
    if (has_port) {
        port.remove_prefix(1);
        const char* end = port.data() + port.size();
        const auto read = std::from_chars(port.data(), end, out.port);
        if (port.empty() || port.size() > 5 || read.ec != std::errc() || read.ptr != end ||
            out.port == 0) {
            return bad("the URL's port is no number from 1 to 65535");
        }
    }
    out.authority = out.address && out.address->v6 ? "[" + out.host + "]" : out.host;
    if (has_port) out.authority += ":" + std::to_string(out.port);
    return {};
}

}  // namespace

Result<MediaUrl> parse_media_url(std::string_view text) {
    if (text.size() > kMaxUrlBytes) {
        return bad("the URL has {} bytes; at most {} are allowed", text.size(), kMaxUrlBytes);
    }
    MediaUrl out;
    std::string_view rest = text;
    out.tls = take(rest, "https://");
    if (!out.tls && !take(rest, "http://")) {
        return bad("the URL must begin with https:// or be a data URL (data:image/png;base64,…)");
    }
    if (!std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127 && c != '\\'; })) {
        return bad(
            "the URL has white space, a backslash or a character beyond ASCII; such "
            "characters must be percent-encoded");
    }
    const std::size_t end = std::min(rest.find_first_of("/?#"), rest.size());
    if (auto ok = read_authority(rest.substr(0, end), out); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    out.target = rest.substr(end, rest.find('#') - end);
    if (!out.target.starts_with('/')) out.target.insert(0, "/");
    return out;
}

Result<MediaUrl> parse_redirect(const MediaUrl& from, std::string_view location) {
    const std::string scheme = from.tls ? "https:" : "http:";
    if (location.starts_with("//")) return parse_media_url(scheme + std::string(location));
    if (location.starts_with('/')) {
        return parse_media_url(scheme + "//" + from.authority + std::string(location));
    }
    return parse_media_url(location);
}

}  // namespace stator::media
