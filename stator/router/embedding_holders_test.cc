#include "stator/router/embedding_holders.h"

#include <gtest/gtest.h>

namespace stator::router {
namespace {

protocol::Digest item(std::uint8_t n) {
    protocol::Digest d{};
    d[0] = n;
    return d;
}

std::vector<RankIndex> ranks_of(EmbeddingHolders& holders, std::uint8_t n) {
    std::vector<Overlap> found;
    holders.find(item(n), found);
    std::vector<RankIndex> out;
    for (const auto& o : found) out.push_back(o.rank);
    return out;
}

using Ranks = std::vector<RankIndex>;

TEST(EmbeddingHolders, RememberWhoMadeWhat) {
    EmbeddingHolders holders;
    holders.add(item(1), 3);
    holders.add(item(1), 5);
    holders.add(item(1), 3);
    holders.add(item(2), 5);
    EXPECT_EQ(ranks_of(holders, 1), (Ranks{5, 3}));
    EXPECT_EQ(ranks_of(holders, 9), Ranks{});
    holders.forget(5);
    EXPECT_EQ(ranks_of(holders, 1), Ranks{3});
    EXPECT_EQ(ranks_of(holders, 2), Ranks{});
    EXPECT_EQ(holders.size(), 1U);
}

TEST(EmbeddingHolders, ForgetWhatWasLongestNotAskedFor) {
    EmbeddingHolders holders(2);
    holders.add(item(1), 1);
    holders.add(item(2), 2);
    EXPECT_EQ(ranks_of(holders, 1), Ranks{1});
    holders.add(item(3), 3);
    EXPECT_EQ(ranks_of(holders, 1), Ranks{1});
    EXPECT_EQ(ranks_of(holders, 2), Ranks{});
    for (RankIndex r = 10; r < 20; ++r) holders.add(item(3), r);
    EXPECT_EQ(ranks_of(holders, 3), (Ranks{16, 17, 18, 19}));
}

}  // namespace
}  // namespace stator::router
