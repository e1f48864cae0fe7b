#include "stator/tokens/token_sequence.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

namespace stator::tokens {
namespace {

/// All hashes anew, from the definition.
void expect_hashes_of(const std::vector<TokenId>& tokens, const TokenSequence& s) {
    RC_ASSERT(std::ranges::equal(s.tokens(), tokens));
    RC_ASSERT(s.size() == tokens.size());
    const std::size_t blocks = tokens.size() / s.block_size();
    RC_ASSERT(s.complete_blocks() == blocks);
    RC_ASSERT(s.block_hashes().size() == blocks);
    RC_ASSERT(s.sequence_hashes().size() == blocks);
    SequenceHash parent;
    for (std::size_t i = 0; i < blocks; ++i) {
        const auto block = std::span(tokens).subspan(i * s.block_size(), s.block_size());
        RC_ASSERT(std::ranges::equal(s.block(i), block));
        const BlockHash hash = block_hash(block, s.seed());
        parent = i == 0 ? sequence_hash(hash) : sequence_hash(parent, hash);
        RC_ASSERT(s.block_hashes()[i] == hash);
        RC_ASSERT(s.sequence_hashes()[i] == parent);
    }
}

RC_GTEST_PROP(TokenSequenceProperty, AnyHistoryGivesTheHashesOfItsTokens, ()) {
    TokenSequence s(*rc::gen::inRange<std::size_t>(1, 9),
                    hash_seed(*rc::gen::element<std::string>("", "adapter"), ""));
    std::vector<TokenId> model;
    const int steps = *rc::gen::inRange(0, 20);
    for (int i = 0; i < steps; ++i) {
        switch (*rc::gen::inRange(0, 3)) {
            case 0: {
                const auto token = *rc::gen::arbitrary<TokenId>();
                s.push(token);
                model.push_back(token);
                break;
            }
            case 1: {
                const auto more = *rc::gen::arbitrary<std::vector<TokenId>>();
                s.append(more);
                model.insert(model.end(), more.begin(), more.end());
                break;
            }
            case 2: {
                const auto n = *rc::gen::inRange<std::size_t>(0, model.size() + 3);
                s.truncate(n);
                model.resize(std::min(n, model.size()));
                break;
            }
        }
        expect_hashes_of(model, s);
    }
}

TEST(TokenSequence, HashesAppearWhenABlockIsComplete) {
    TokenSequence s(4, hash_seed());
    for (TokenId t = 0; t < 3; ++t) s.push(t);
    EXPECT_EQ(s.complete_blocks(), 0U);
    s.push(3);
    EXPECT_EQ(s.complete_blocks(), 1U);
    const SequenceHash first = s.sequence_hashes()[0];
    s.append(std::vector<TokenId>{4, 5, 6, 7, 8});
    EXPECT_EQ(s.complete_blocks(), 2U);
    EXPECT_EQ(s.sequence_hashes()[0], first);
    s.truncate(7);
    EXPECT_EQ(s.complete_blocks(), 1U);
    s.truncate(0);
    EXPECT_TRUE(s.empty());
    EXPECT_EQ(s.complete_blocks(), 0U);
}

TEST(TokenSequence, TheSeedSeparatesNamespaces) {
    const std::vector<TokenId> tokens{1, 2, 3, 4};
    TokenSequence ours(4, hash_seed("", "ours"));
    TokenSequence theirs(4, hash_seed("", "theirs"));
    ours.append(tokens);
    theirs.append(tokens);
    EXPECT_NE(ours.sequence_hashes()[0], theirs.sequence_hashes()[0]);
}

TEST(TokenSequenceDeathTest, BlockSizeZero) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(TokenSequence(0), "at least one token");
}

}  // namespace
}  // namespace stator::tokens
