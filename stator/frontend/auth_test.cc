#include "stator/frontend/auth.h"

#include <gtest/gtest.h>

namespace stator::frontend {
namespace {

net::HttpRequest with(std::vector<net::HttpHeader> headers) {
    net::HttpRequest r;
    r.headers = std::move(headers);
    return r;
}

TEST(Auth, RingKnowsItsKeysOnly) {
    const std::vector<std::string> keys = {"alpha", "beta"};
    const KeyRing ring(keys);
    EXPECT_FALSE(ring.open());
    EXPECT_TRUE(ring.has("alpha"));
    EXPECT_TRUE(ring.has("beta"));
    EXPECT_EQ(ring.find("alpha"), 0U);
    EXPECT_EQ(ring.find("beta"), 1U);
    EXPECT_EQ(ring.find("gamma"), std::nullopt);
    for (const char* wrong : {"", "alph", "alphaa", "Alpha", "betaalpha"})
        EXPECT_FALSE(ring.has(wrong));
    EXPECT_TRUE(KeyRing({}).open());
    EXPECT_FALSE(KeyRing({}).has(""));
}

TEST(Auth, ReadsBothHeaders) {
    EXPECT_EQ(presented_key(with({{"Authorization", "Bearer k1"}})), "k1");
    EXPECT_EQ(presented_key(with({{"authorization", "bEaReR  k1 "}})), "k1");
    EXPECT_EQ(presented_key(with({{"X-Api-Key", "k2"}})), "k2");
    EXPECT_EQ(presented_key(with({{"x-api-key", "k2"}, {"Authorization", "Bearer k1"}})), "k1");
    EXPECT_EQ(presented_key(with({{"Authorization", "Basic k1"}})), "");
    EXPECT_EQ(presented_key(with({{"Authorization", "Bearer"}})), "");
    EXPECT_EQ(presented_key(with({})), "");
}

}  // namespace
}  // namespace stator::frontend
