#include "stator/cli/bind_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::cli {
namespace {

TEST(BindGuard, Loopback) {
    for (const char* host : {"127.0.0.1", "127.255.0.3", "::1", "[::1]", "localhost",
                             "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1"}) {
        EXPECT_TRUE(is_loopback(host)) << host;
    }
}

TEST(BindGuard, EverythingElseIsReachable) {
    for (const char* host :
         {"0.0.0.0", "::", "[::]", "128.0.0.1", "10.0.0.1", "example.org", "localhost.example.org",
          "127.0.0.1.example.org", "127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "", "*",
          "[127.0.0.1]", "::2", "127.0.0.1 ", "::ffff:128.0.0.1", "LOCALHOST"}) {
        EXPECT_FALSE(is_loopback(host)) << host;
    }
}

TEST(BindGuard, RefusesAnOpenServerAndNamesBothWaysOut) {
    EXPECT_TRUE(check_bind("127.0.0.1", false, false).has_value());
    EXPECT_TRUE(check_bind("0.0.0.0", true, false).has_value());
    EXPECT_TRUE(check_bind("0.0.0.0", false, true).has_value());
    const auto refused = check_bind("0.0.0.0", false, false);
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("\"0.0.0.0\""));
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("--api-key-file"));
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("--allow-unauthenticated"));
}

}  // namespace
}  // namespace stator::cli
