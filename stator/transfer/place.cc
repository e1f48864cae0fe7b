#include "stator/transfer/place.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <vector>

#include "stator/protocol/handoff.h"

namespace stator::transfer {
namespace {

std::string hex(const PlaneId& id) {
    std::string out;
    for (const std::uint8_t b : id) out += fmt::format("{:02x}", b);
    return out;
}

bool from_hex(std::string_view text, PlaneId& id) {
    if (text.size() != id.size() * 2) return false;
    const auto digit = [](char c) {
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    for (std::size_t i = 0; i < id.size(); ++i) {
        const int high = digit(text[2 * i]);
        const int low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        id[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return true;
}

/// The fields after the version "1".
std::vector<std::string_view> fields_of(std::string_view text) {
    std::vector<std::string_view> out;
    if (text.size() > protocol::kMaxPlaceBytes) return out;
    while (true) {
        const std::size_t end = text.find(';');
        out.push_back(text.substr(0, end));
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    if (out.front() != "1") return {};
    out.erase(out.begin());
    return out;
}

std::string read_host_identity() {
    std::string boot;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    std::array<char, 64> space{};
    if (::readlink("/proc/self/ns/net", space.data(), space.size() - 1) <= 0) return {};
    return boot.empty() ? boot : boot + "/" + space.data();
}

}  // namespace

const std::string& host_identity() {
    static const std::string identity = read_host_identity();
    return identity;
}

std::string to_string(const ShmPlace& place) {
    return fmt::format("1;{};{}", place.host, hex(place.plane));
}

Result<ShmPlace> parse_shm_place(std::string_view text) {
    const auto fields = fields_of(text);
    ShmPlace place;
    if (fields.size() != 2 || !from_hex(fields[1], place.plane)) {
        return error(ErrorCode::kUnavailable, "'{}' is no address of method shm",
                     text.substr(0, 128));
    }
    place.host = fields[0];
    return place;
}

std::string socket_name(const PlaneId& plane) { return "stator-transfer-" + hex(plane); }

std::string to_string(const TcpPlace& place) {
    return fmt::format("1;{};{};{}", hex(place.plane), place.tls ? "tls" : "plain",
                       net::to_string(place.address));
}

Result<TcpPlace> parse_tcp_place(std::string_view text) {
    const auto fields = fields_of(text);
    TcpPlace place;
    if (fields.size() == 3 && from_hex(fields[0], place.plane) &&
        (fields[1] == "tls" || fields[1] == "plain")) {
        auto address = net::parse_socket_address(fields[2]);
        if (address && address->kind == net::SocketAddress::Kind::kTcp && address->port != 0) {
            place.tls = fields[1] == "tls";
            place.address = std::move(*address);
            return place;
        }
    }
    return error(ErrorCode::kUnavailable, "'{}' is no address of method tcp", text.substr(0, 128));
}

}  // namespace stator::transfer
