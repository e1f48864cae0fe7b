#include "stator/fleet/words.h"

#include <gtest/gtest.h>

namespace stator::fleet {
namespace {

protocol::WorkerInfo words() {
    protocol::WorkerInfo info;
    info.name = "w";
    info.incarnation = protocol::Incarnation(5);
    info.card.name = "tiny";
    info.ranks = {{.rank = 0}, {.rank = 1}};
    return info;
}

TEST(Words, RanksAreThereAndWithoutGaps) {
    EXPECT_TRUE(check_words(nullptr, words()));
    auto none = words();
    none.ranks.clear();
    EXPECT_FALSE(check_words(nullptr, none));
    auto gap = words();
    gap.ranks[1].rank = 2;
    EXPECT_FALSE(check_words(nullptr, gap));
}

TEST(Words, WhoItIsNeverChangesAndWhatItServesOnlyWhileLoading) {
    const auto before = words();
    EXPECT_TRUE(check_words(&before, words()));
    auto other = words();
    other.incarnation = protocol::Incarnation(6);
    EXPECT_FALSE(check_words(&before, other));
    other = words();
    other.name = "v";
    EXPECT_FALSE(check_words(&before, other));
    auto loading = words();
    loading.loading = true;
    for (const bool card : {true, false}) {
        auto now = words();
        if (card) {
            now.card.weights_digest = "other";
        } else {
            now.ranks.pop_back();
        }
        EXPECT_FALSE(check_words(&before, now));
        EXPECT_TRUE(check_words(&loading, now));
    }
    auto draining = words();
    draining.draining = true;
    draining.card.aliases = {"small"};
    EXPECT_TRUE(check_words(&before, draining));
}

}  // namespace
}  // namespace stator::fleet
