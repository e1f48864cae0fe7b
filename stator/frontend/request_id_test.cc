#include "stator/frontend/request_id.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>

namespace stator::frontend {
namespace {

TEST(RequestId, TakesOnlySafeIds) {
    EXPECT_TRUE(valid_request_id("a"));
    EXPECT_TRUE(valid_request_id("Trace-1_2.3:4"));
    EXPECT_TRUE(valid_request_id(std::string(128, 'x')));
    EXPECT_FALSE(valid_request_id(""));
    EXPECT_FALSE(valid_request_id(std::string(129, 'x')));
    for (const char* bad : {"a b", "a\nb", "a/b", "ä", "a\"", "a\x7f"})
        EXPECT_FALSE(valid_request_id(bad));
}

TEST(RequestId, SourceDoesNotRepeat) {
    IdSource ids(7);
    std::set<std::string> seen;
    for (int i = 0; i < 10'000; ++i) {
        const auto id = ids.next("req-");
        EXPECT_TRUE(valid_request_id(id));
        EXPECT_EQ(id.size(), 20U);
        EXPECT_TRUE(seen.insert(id).second);
    }
}

TEST(RequestId, CallsAreNamedAsOpenAIDoes) {
    IdSource ids(7);
    std::set<std::string> seen;
    for (int i = 0; i < 10'000; ++i) {
        const auto id = ids.next_call();
        EXPECT_TRUE(id.starts_with("call_"));
        EXPECT_EQ(id.size(), 29U);
        EXPECT_TRUE(std::all_of(id.begin() + 5, id.end(),
                                [](unsigned char c) { return std::isalnum(c) != 0; }));
        EXPECT_TRUE(seen.insert(id).second);
    }
}

}  // namespace
}  // namespace stator::frontend
