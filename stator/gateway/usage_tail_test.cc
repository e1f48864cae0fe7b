#include "stator/gateway/usage_tail.h"

#include <gtest/gtest.h>

#include <string>

namespace stator::gateway {
namespace {

TEST(UsageTail, FindsTheLastNumberWhateverCameBefore) {
    UsageTail tail;
    EXPECT_EQ(tail.cached_tokens(), std::nullopt);
    tail.take(R"({"cached_tokens":1} )");
    for (int i = 0; i < 100; ++i) tail.take(std::string(100, 'x'));
    EXPECT_EQ(tail.cached_tokens(), std::nullopt);
    tail.take(std::string(10'000, 'y') + R"("cached_tok)");
    tail.take(R"(ens": 96}}})");
    EXPECT_EQ(tail.cached_tokens(), 96U);
}

TEST(UsageTail, WhatIsNoNumberIsNotSaid) {
    for (const char* text :
         {R"("cached_tokens":null)", R"("cached_tokens":)", R"("cached_tokens":99999999999)"}) {
        UsageTail tail;
        tail.take(text);
        EXPECT_EQ(tail.cached_tokens(), std::nullopt) << text;
    }
}

}  // namespace
}  // namespace stator::gateway
