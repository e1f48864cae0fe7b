#include "stator/engine/llama/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/tokens/hash.h"

namespace stator::engine::llama {
namespace {

constexpr std::uint32_t kBlock = 2;

/// Hashes of a prompt's blocks, as the scheduler computes them.
struct Prompt {
    explicit Prompt(std::vector<TokenId> t) : tokens(std::move(t)) {
        for (std::size_t i = 0; i + kBlock <= tokens.size(); i += kBlock) {
            const auto b =
                tokens::block_hash(std::span(tokens).subspan(i, kBlock), tokens::hash_seed());
            sequence.push_back(block.empty() ? tokens::sequence_hash(b)
                                             : tokens::sequence_hash(sequence.back(), b));
            block.push_back(b);
        }
    }
    std::vector<TokenId> tokens;
    std::vector<tokens::BlockHash> block;
    std::vector<tokens::SequenceHash> sequence;
};

PrefixMatch match(const PrefixCache& cache, const Prompt& p, std::uint64_t salt = 0) {
    return cache.match(p.tokens, p.sequence, salt, 100);
}

/// Opens, commits every block beyond the match, and returns the sequence.
SeqId compute(PrefixCache& cache, const Prompt& p, std::uint64_t salt = 0) {
    const PrefixMatch m = match(cache, p, salt);
    const SeqId id = cache.open(m, salt);
    for (std::size_t i = m.blocks.size(); i < p.block.size(); ++i) {
        cache.commit(id, std::span(p.tokens).subspan(i * kBlock, kBlock), p.block[i],
                     p.sequence[i]);
    }
    return id;
}

TEST(PrefixCache, AnIdleSequenceIsTakenOverAsItIs) {
    PrefixCache cache(kBlock, 4, true);
    const Prompt p({1, 2, 3, 4});
    const SeqId first = compute(cache, p);
    cache.close(first, true);
    EXPECT_EQ(cache.idle_blocks(), 2U);
    (void)cache.take_ops();

    const PrefixMatch m = match(cache, p);
    EXPECT_EQ(m.blocks.size(), 2U);
    EXPECT_EQ(m.idle_blocks, 2U);
    EXPECT_EQ(cache.open(m, 0), first);
    EXPECT_TRUE(cache.take_ops().empty()) << "nothing to copy";
    EXPECT_EQ(cache.idle_blocks(), 0U);
}

TEST(PrefixCache, APartOfAnotherSequenceIsShared) {
    PrefixCache cache(kBlock, 4, true);
    const SeqId a = compute(cache, Prompt({1, 2, 3, 4, 5, 6}));
    (void)cache.take_ops();
    const SeqId b = compute(cache, Prompt({1, 2, 3, 4, 9, 9}));
    EXPECT_THAT(cache.take_ops(), testing::ElementsAre(KvOp{KvOp::Kind::kCopy, b, a, 0, 4}));
    EXPECT_EQ(cache.used_blocks(), 4U);
}

TEST(PrefixCache, TheSameBlockComputedTwiceIsKeptOnce) {
    PrefixCache cache(kBlock, 4, true);
    const Prompt p({1, 2, 3, 4});
    const SeqId a = cache.open({}, 0);
    const SeqId b = cache.open({}, 0);
    for (const SeqId id : {a, b}) {
        EXPECT_TRUE(cache.commit(id, std::span(p.tokens).first(kBlock), p.block[0], p.sequence[0]));
    }
    EXPECT_EQ(cache.used_blocks(), 1U);
    EXPECT_THAT(cache.take_ops(), testing::ElementsAre(KvOp{KvOp::Kind::kRemove, b, -1, 0, 2},
                                                       KvOp{KvOp::Kind::kCopy, b, a, 0, 2}));
}

TEST(PrefixCache, AHashCollisionIsAMissNotAMixUp) {
    PrefixCache cache(kBlock, 4, true);
    const Prompt p({1, 2});
    const SeqId a = compute(cache, p);
    Prompt liar({7, 8, 9, 9});
    liar.sequence[0] = p.sequence[0];
    EXPECT_TRUE(match(cache, liar).blocks.empty());
    const SeqId b = cache.open({}, 0);
    EXPECT_FALSE(
        cache.commit(b, std::span(liar.tokens).first(kBlock), liar.block[0], liar.sequence[0]));
    EXPECT_FALSE(
        cache.commit(b, std::span(liar.tokens).last(kBlock), liar.block[1], liar.sequence[1]))
        << "a child of a block that is not in the tree can't be either";
    EXPECT_EQ(cache.used_blocks(), 1U);
    cache.close(b, true);
    cache.close(a, true);
    EXPECT_EQ(cache.idle_blocks(), 1U);
}

TEST(PrefixCache, SaltsAreKeptApartEvenWithEqualHashes) {
    PrefixCache cache(kBlock, 4, true);
    const Prompt p({1, 2});
    (void)compute(cache, p, 1);
    EXPECT_EQ(match(cache, p, 1).blocks.size(), 1U);
    EXPECT_TRUE(match(cache, p, 2).blocks.empty());
}

TEST(PrefixCache, EvictsFromTheEndOfTheLeastRecentlyUsed) {
    PrefixCache cache(kBlock, 5, true);
    const Prompt old({1, 1, 2, 2});
    const Prompt young({3, 3, 4, 4});
    cache.close(compute(cache, old), true);
    cache.close(compute(cache, young), true);
    ASSERT_TRUE(cache.evict_one());
    EXPECT_EQ(match(cache, old).blocks.size(), 1U);
    EXPECT_EQ(match(cache, young).blocks.size(), 2U);
    cache.close(compute(cache, old), true);  // used again: now the other is older
    ASSERT_TRUE(cache.evict_one());
    EXPECT_EQ(match(cache, young).blocks.size(), 1U);
    while (cache.evict_one()) {
    }
    EXPECT_EQ(cache.used_blocks(), 0U);
    EXPECT_EQ(cache.idle_blocks(), 0U);
}

TEST(PrefixCache, OpenSequencesAreNeverEvicted) {
    PrefixCache cache(kBlock, 4, true);
    const SeqId a = compute(cache, Prompt({1, 2, 3, 4}));
    EXPECT_FALSE(cache.evict_one());
    cache.close(a, true);
    EXPECT_TRUE(cache.evict_one());
}

TEST(PrefixCache, ASequenceThatAddsNothingIsNotKept) {
    PrefixCache cache(kBlock, 4, true);
    const SeqId a = compute(cache, Prompt({1, 2, 3, 4}));
    const SeqId b = compute(cache, Prompt({1, 2}));
    cache.close(b, true);
    EXPECT_EQ(cache.idle_blocks(), 0U) << "its only block lives in the open one";
    cache.close(a, true);
    EXPECT_EQ(cache.idle_blocks(), 2U);
}

TEST(PrefixCache, RunsOutOfIdsByForgettingTheOldest) {
    PrefixCache cache(kBlock, 3, true);
    cache.close(compute(cache, Prompt({1, 1})), true);
    cache.close(compute(cache, Prompt({2, 2})), true);
    cache.close(compute(cache, Prompt({3, 3})), true);
    EXPECT_EQ(cache.idle_blocks(), 3U);
    cache.close(compute(cache, Prompt({4, 4})), true);
    EXPECT_EQ(cache.idle_blocks(), 3U);
    EXPECT_TRUE(match(cache, Prompt({1, 1})).blocks.empty());
}

TEST(PrefixCache, TheLastIdleSequenceIsCutToWhatIsAskedFor) {
    PrefixCache cache(kBlock, 2, true);
    cache.close(compute(cache, Prompt({5, 5})), true);
    const SeqId kept = compute(cache, Prompt({1, 1, 2, 2, 3, 3}));
    cache.close(kept, true);
    const SeqId busy = cache.open({}, 0);
    EXPECT_NE(busy, kept);
    (void)cache.take_ops();
    const PrefixMatch m = match(cache, Prompt({1, 1, 9, 9}));
    ASSERT_EQ(m.blocks.size(), 1U);
    EXPECT_FALSE(cache.can_open());
    cache.close(busy, false);
    (void)cache.take_ops();
}

TEST(PrefixCache, WithoutReuseNothingIsKept) {
    PrefixCache cache(kBlock, 4, false);
    const Prompt p({1, 2, 3, 4});
    const SeqId a = cache.open({}, 0);
    EXPECT_FALSE(cache.commit(a, std::span(p.tokens).first(kBlock), p.block[0], p.sequence[0]));
    cache.close(a, true);
    EXPECT_EQ(cache.used_blocks(), 0U);
    EXPECT_TRUE(cache.take_events().empty());
}

TEST(PrefixCache, EventsNameParentsAndRunInOrder) {
    PrefixCache cache(kBlock, 4, true);
    const Prompt p({1, 2, 3, 4});
    const SeqId a = compute(cache, p);
    const auto stored = cache.take_events();
    ASSERT_EQ(stored.size(), 1U) << "a run of blocks is one event";
    EXPECT_EQ(stored[0].seq.value, 1U);
    const auto& what = std::get<protocol::KvStored>(stored[0].what);
    EXPECT_FALSE(what.parent.has_value());
    ASSERT_EQ(what.blocks.size(), 2U);
    EXPECT_EQ(what.blocks[1].sequence, p.sequence[1]);
    EXPECT_EQ(what.blocks[1].block, p.block[1]);
    EXPECT_EQ(what.blocks[1].tokens, (std::vector<TokenId>{3, 4}));
    cache.close(a, false);
    const auto removed = cache.take_events();
    ASSERT_EQ(removed.size(), 1U);
    EXPECT_THAT(std::get<protocol::KvRemoved>(removed[0].what).sequences,
                testing::ElementsAre(p.sequence[1], p.sequence[0]));
    cache.reset();
    const auto cleared = cache.take_events();
    ASSERT_EQ(cleared.size(), 1U);
    EXPECT_EQ(cleared[0].seq.value, 3U);
    EXPECT_TRUE(std::holds_alternative<protocol::KvCleared>(cleared[0].what));
}

}  // namespace
}  // namespace stator::engine::llama
