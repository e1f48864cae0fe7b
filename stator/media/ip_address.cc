#include "stator/media/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>

namespace stator::media {
namespace {

struct Range {
    std::array<std::uint8_t, 16> bytes;
    unsigned bits;
    std::string_view name;
};

constexpr auto kV4 = std::to_array<Range>({
    {{0}, 8, "unspecified"},
    {{10}, 8, "private"},
    {{100, 64}, 10, "shared (carrier-grade NAT)"},
    {{127}, 8, "loopback"},
    {{168, 63, 129, 16}, 32, "a cloud provider's own"},
    {{169, 254}, 16, "link-local"},
    {{172, 16}, 12, "private"},
    {{192, 0, 0}, 24, "for protocols"},
    {{192, 0, 2}, 24, "for documentation"},
    {{192, 88, 99}, 24, "a 6to4 relay's"},
    {{192, 168}, 16, "private"},
    {{198, 18}, 15, "for benchmarks"},
    {{198, 51, 100}, 24, "for documentation"},
    {{203, 0, 113}, 24, "for documentation"},
    {{224}, 4, "multicast"},
    {{240}, 4, "reserved"},
});

constexpr auto kV6 = std::to_array<Range>({
    {{0x20, 0x01}, 23, "for protocols"},  // Teredo, benchmarks, ORCHID
    {{0x20, 0x01, 0x0d, 0xb8}, 32, "for documentation"},
    {{0x20, 0x02}, 16, "6to4"},
    {{0x3f, 0xff}, 20, "for documentation"},
    {{0xfc}, 7, "private"},
    {{0xfe, 0x80}, 10, "link-local"},
    {{0xfe, 0xc0}, 10, "site-local"},
    {{0xff}, 8, "multicast"},
});

constexpr Range kMapped{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96, ""};
constexpr Range kNat64{{0, 0x64, 0xff, 0x9b}, 96, ""};
constexpr Range kGlobalUnicast{{0x20}, 3, ""};

bool is_in(const IpAddress& address, const Range& range) {
    for (unsigned bit = 0; bit < range.bits; bit += 8) {
        const unsigned left = std::min(range.bits - bit, 8U);
        const auto mask = static_cast<std::uint8_t>(0xFFU << (8 - left));
        if (((address.bytes[bit / 8] ^ range.bytes[bit / 8]) & mask) != 0) return false;
    }
    return true;
}

IpAddress embedded(const IpAddress& address) {
    IpAddress v4;
    std::copy_n(address.bytes.begin() + 12, 4, v4.bytes.begin());
    return v4;
}

std::string_view why_not_public_v6(const IpAddress& address) {
    if (is_in(address, kMapped) || is_in(address, kNat64)) {
        return why_not_public(embedded(address));
    }
    for (const Range& range : kV6) {
        if (is_in(address, range)) return range.name;
    }
    if (is_in(address, kGlobalUnicast)) return {};
    IpAddress loopback{.v6 = true, .bytes = {}};
    loopback.bytes[15] = 1;
    return address == loopback ? "loopback" : "reserved";
}

/// inet_pton() takes no leading zeros, no hexadecimal and no missing parts, as it should be.
template <typename Text>
bool parse(int family, const Text& text, void* to) {
    return ::inet_pton(family, text.c_str(), to) == 1;
}

}  // namespace

std::optional<IpAddress> parse_ip_address(std::string_view text) {
    if (text.size() > INET6_ADDRSTRLEN || text.find('\0') != std::string_view::npos) {
        return std::nullopt;
    }
    const std::string owned(text);
    IpAddress out;
    if (parse(AF_INET, owned, out.bytes.data())) return out;
    out.v6 = true;
    if (parse(AF_INET6, owned, out.bytes.data())) return out;
    return std::nullopt;
}

std::string to_string(const IpAddress& address) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    ::inet_ntop(address.v6 ? AF_INET6 : AF_INET, address.bytes.data(), text.data(), text.size());
    return text.data();
}

std::string_view why_not_public(const IpAddress& address) {
    if (address.v6) return why_not_public_v6(address);
    for (const Range& range : kV4) {
        if (is_in(address, range)) return range.name;
    }
    return {};
}

}  // namespace stator::media
