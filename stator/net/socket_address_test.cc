#include "stator/net/socket_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace stator::net {
namespace {

SocketAddress tcp(std::string host, std::uint16_t port) {
    return {.kind = SocketAddress::Kind::kTcp, .host = std::move(host), .port = port, .path = {}};
}
SocketAddress unix_socket(std::string path) {
    return {.kind = SocketAddress::Kind::kUnix, .host = {}, .port = 0, .path = std::move(path)};
}

TEST(SocketAddress, ReadsItsForms) {
    EXPECT_EQ(parse_socket_address("tcp://example.com:80"), tcp("example.com", 80));
    EXPECT_EQ(parse_socket_address("worker-1:0"), tcp("worker-1", 0));
    EXPECT_EQ(parse_socket_address("[::1]:65535"), tcp("::1", 65535));
    EXPECT_EQ(parse_socket_address("tcp://[fe80::1%eth0]:1"), tcp("fe80::1%eth0", 1));
    EXPECT_EQ(parse_socket_address("unix:/run/s"), unix_socket("/run/s"));
}

TEST(SocketAddress, RefusesTheRestAndShowsTheForms) {
    const std::string long_path = "unix:/" + std::string(107, 'x');
    for (const std::string& text : {std::string(),
                                    std::string("host"),
                                    std::string(":80"),
                                    std::string("host:"),
                                    std::string("host:65536"),
                                    std::string("host:-1"),
                                    std::string("host:8 0"),
                                    std::string("::1:80"),
                                    std::string("[::1]"),
                                    std::string("[::1]80"),
                                    std::string("[host]:80"),
                                    std::string("http://host:80"),
                                    std::string("tcp://host:80/x"),
                                    std::string("ho st:80"),
                                    std::string("unix:"),
                                    std::string("unix:relative"),
                                    std::string("unix:/folder/"),
                                    std::string("unix:/a\0b", 9),
                                    std::string("[::1\0]:80", 10),
                                    std::string("host\0:80", 8),
                                    long_path}) {
        const auto result = parse_socket_address(text);
        ASSERT_FALSE(result) << text;
        EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
        EXPECT_THAT(result.error().message, ::testing::HasSubstr("unix:/path"));
    }
    EXPECT_TRUE(parse_socket_address(long_path.substr(0, 5 + 107)));
}

TEST(SocketAddress, WhatIsWrittenIsReadBack) {
    EXPECT_TRUE(rc::check([] {
        const auto letters = [](const char* from) {
            return rc::gen::nonEmpty(
                rc::gen::container<std::string>(rc::gen::elementOf(std::string(from))));
        };
        const auto port = *rc::gen::arbitrary<std::uint16_t>();
        const SocketAddress address = *rc::gen::oneOf(
            rc::gen::map(letters("abcXYZ019.-_"),
                         [&](std::string host) { return tcp(host.substr(0, 253), port); }),
            rc::gen::map(rc::gen::inRange(0, 0xffff),
                         [&](int word) { return tcp(fmt::format("fd00::{:x}", word), port); }),
            rc::gen::map(letters("ab:/[]@ %"), [](std::string path) {
                return unix_socket("/" + path.substr(0, 100) + "z");
            }));
        RC_ASSERT(parse_socket_address(to_string(address)) == address);
    }));
}

TEST(SocketAddress, AnyTextIsReadOrRefused) {
    EXPECT_TRUE(rc::check([](const std::string& text) {
        const auto result = parse_socket_address(text);
        if (result) RC_ASSERT(parse_socket_address(to_string(*result)) == *result);
    }));
}

TEST(SocketAddress, KnowsWhatIsLocal) {
    for (const auto* local : {"unix:/s", "localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1"}) {
        EXPECT_TRUE(is_local(*parse_socket_address(local))) << local;
    }
    for (const auto* other : {"example.com:1", "128.0.0.1:1", "0.0.0.0:1", "[::2]:1", "[::]:1"}) {
        EXPECT_FALSE(is_local(*parse_socket_address(other))) << other;
    }
}

}  // namespace
}  // namespace stator::net
