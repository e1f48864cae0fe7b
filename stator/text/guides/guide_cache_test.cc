#include "stator/text/guides/guide_cache.h"

#include <gtest/gtest.h>

#include <string>

#include "stator/text/byte_tokenizer.h"

namespace stator::text {
namespace {

using protocol::OutputConstraint;
using Kind = OutputConstraint::Kind;

OutputConstraint regex(std::string text) { return {Kind::kRegex, std::move(text), {}}; }

std::shared_ptr<const GuideFactory> factory() {
    auto made = GuideFactory::make(ByteTokenizer{});
    EXPECT_TRUE(made);
    return *made;
}

TEST(GuideCache, CompilesAConstraintOnce) {
    GuideCache cache(factory());
    auto one = cache.get(regex("ab"));
    auto two = cache.get(regex("ab"));
    ASSERT_TRUE(one && two);
    EXPECT_EQ(cache.compiled(), 1U);
    // Each at the beginning of a text of its own.
    ASSERT_TRUE(one->accept('a'));
    ASSERT_TRUE(one->accept('b'));
    EXPECT_TRUE(one->finished());
    EXPECT_FALSE(two->finished());
    EXPECT_FALSE(two->accept('b'));
    ASSERT_TRUE(cache.get({Kind::kRegex, "ab", "</x>"}));
    ASSERT_TRUE(cache.get({Kind::kChoice, R"(["ab"])", ""}));
    EXPECT_EQ(cache.compiled(), 3U);
}

TEST(GuideCache, RefusalsAreKept) {
    GuideCache cache(factory());
    const auto one = cache.get(regex("a("));
    const auto two = cache.get(regex("a("));
    ASSERT_FALSE(one);
    ASSERT_FALSE(two);
    EXPECT_EQ(one.error().message, two.error().message);
    EXPECT_EQ(cache.compiled(), 1U);
}

TEST(GuideCache, ForgetsWhatWasUsedLongestAgo) {
    GuideCache cache(factory(), {.entries = 2, .bytes = 1000});
    ASSERT_TRUE(cache.get(regex("a")));
    ASSERT_TRUE(cache.get(regex("b")));
    ASSERT_TRUE(cache.get(regex("a")));
    ASSERT_TRUE(cache.get(regex("c")));  // b goes
    EXPECT_EQ(cache.size(), 2U);
    ASSERT_TRUE(cache.get(regex("a")));
    EXPECT_EQ(cache.compiled(), 3U);
    ASSERT_TRUE(cache.get(regex("b")));
    EXPECT_EQ(cache.compiled(), 4U);
    // Texts are bounded too; the newest stays in any case.
    ASSERT_TRUE(cache.get(regex(std::string(2000, 'a'))));
    EXPECT_EQ(cache.size(), 1U);
}

TEST(GuideCache, AForgottenConstraintIsCompiledAnew) {
    GuideCache cache(factory());
    ASSERT_TRUE(cache.get(regex("a")));
    cache.forget(regex("a"));
    cache.forget(regex("b"));
    EXPECT_EQ(cache.size(), 0U);
    ASSERT_TRUE(cache.get(regex("a")));
    EXPECT_EQ(cache.compiled(), 2U);
}

}  // namespace
}  // namespace stator::text
