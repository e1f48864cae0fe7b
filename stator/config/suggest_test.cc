#include "stator/config/suggest.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>

namespace stator::config {
namespace {

constexpr std::array<std::string_view, 4> kWords{"serve", "chat", "config", "version"};

TEST(Suggest, CountsEdits) {
    EXPECT_EQ(edit_distance("", ""), 0U);
    EXPECT_EQ(edit_distance("", "abc"), 3U);
    EXPECT_EQ(edit_distance("port", "prot"), 1U);
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
}

TEST(Suggest, FindsWhatWasMeant) {
    EXPECT_EQ(nearest("sevre", kWords), "serve");
    EXPECT_EQ(nearest("cht", kWords), "chat");
    EXPECT_EQ(nearest("configure", kWords), "config");
    EXPECT_EQ(nearest("bench", kWords), "");
    EXPECT_EQ(nearest(std::string(100'000, 's'), kWords), "");
    EXPECT_EQ(did_you_mean("sevre", kWords), " Did you mean serve?");
    EXPECT_EQ(did_you_mean("bench", kWords), "");
}

TEST(Suggest, DistanceIsSymmetricAndZeroOnlyForEqualWords) {
    EXPECT_TRUE(rc::check([] {
        const auto word = rc::gen::container<std::string>(rc::gen::elementOf(std::string("abc")));
        const std::string a = *word;
        const std::string b = *word;
        RC_ASSERT(edit_distance(a, b) == edit_distance(b, a));
        RC_ASSERT((edit_distance(a, b) == 0) == (a == b));
        RC_ASSERT(edit_distance(a, b) <= std::max(a.size(), b.size()));
    }));
}

}  // namespace
}  // namespace stator::config
