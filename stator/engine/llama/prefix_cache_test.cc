#include "stator/engine/llama/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/tokens/hash.h"

namespace stator::engine::llama {
namespace {

using Kind = KvOp::Kind;
using testing::ElementsAre;

constexpr std::uint32_t kBlock = 2;
constexpr SegmentId kNone{};

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

void compute_and_close(PrefixCache& cache, const Prompt& p) { cache.close(compute(cache, p)); }

TEST(PrefixCache, ClosingParksAndOpeningTakesBack) {
    PrefixCache cache(kBlock, 4, 100, true);
    const Prompt p({1, 2, 3, 4});
    const SeqId first = compute(cache, p);
    EXPECT_EQ(cache.open_blocks(), 2U);
    cache.close(first);
    EXPECT_EQ(cache.open_blocks(), 0U);
    EXPECT_EQ(cache.idle_blocks(), 2U);
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kSave, first, -1, SegmentId(1), 0, 4},
                                              KvOp{Kind::kRemove, first, -1, kNone, 0, kToEnd}));

    const PrefixMatch m = match(cache, p);
    EXPECT_EQ(m.blocks.size(), 2U);
    EXPECT_EQ(m.parked_blocks, 2U);
    EXPECT_EQ(m.slack_blocks, 0U);
    const SeqId second = cache.open(m, 0);
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kLoad, second, -1, SegmentId(1), 0, 4}));
    EXPECT_EQ(cache.idle_blocks(), 0U);
    cache.close(second);
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kRemove, second, -1, kNone, 0, kToEnd}))
        << "it is parked already: nothing to save";
}

TEST(PrefixCache, APartOfASegmentNeedsRoomForAllOfIt) {
    PrefixCache cache(kBlock, 4, 100, true);
    compute_and_close(cache, Prompt({1, 1, 2, 2, 3, 3}));
    (void)cache.take_ops();
    const PrefixMatch m = match(cache, Prompt({1, 1, 2, 2, 9, 9}));
    EXPECT_EQ(m.parked_blocks, 2U);
    EXPECT_EQ(m.slack_blocks, 1U);
    const SeqId id = cache.open(m, 0);
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kLoad, id, -1, SegmentId(1), 0, 4}));
}

TEST(PrefixCache, WhatAnOpenSequenceHoldsIsSharedAndTheRestTakenBack) {
    PrefixCache cache(kBlock, 4, 100, true);
    compute_and_close(cache, Prompt({1, 1, 2, 2, 3, 3}));
    const SeqId open = compute(cache, Prompt({1, 1, 8, 8}));
    (void)cache.take_ops();
    const PrefixMatch m = match(cache, Prompt({1, 1, 2, 2, 3, 3}));
    EXPECT_EQ(m.parked_blocks, 2U);
    EXPECT_EQ(m.slack_blocks, 1U);
    const SeqId id = cache.open(m, 0);
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kCopy, id, open, kNone, 0, 2},
                                              KvOp{Kind::kLoad, id, -1, SegmentId(1), 2, 6}));
}

TEST(PrefixCache, TheSameBlockComputedTwiceTakesCellsOnce) {
    PrefixCache cache(kBlock, 4, 100, true);
    const Prompt p({1, 2, 3, 4});
    const SeqId a = cache.open({}, 0);
    const SeqId b = cache.open({}, 0);
    for (const SeqId id : {a, b}) {
        EXPECT_TRUE(cache.commit(id, std::span(p.tokens).first(kBlock), p.block[0], p.sequence[0]));
    }
    EXPECT_EQ(cache.open_blocks(), 1U);
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kRemove, b, -1, kNone, 0, 2},
                                              KvOp{Kind::kCopy, b, a, kNone, 0, 2}));
    cache.close(a);
    EXPECT_EQ(cache.open_blocks(), 1U) << "the other still holds it";
    cache.close(b);
    EXPECT_EQ(cache.idle_blocks(), 1U);
}

TEST(PrefixCache, AHashCollisionIsAMissNotAMixUp) {
    PrefixCache cache(kBlock, 4, 100, true);
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
    EXPECT_EQ(cache.known_blocks(), 1U);
    cache.close(b);
    cache.close(a);
    EXPECT_EQ(cache.idle_blocks(), 1U);
}

TEST(PrefixCache, SaltsAreKeptApartEvenWithEqualHashes) {
    PrefixCache cache(kBlock, 4, 100, true);
    const Prompt p({1, 2});
    (void)compute(cache, p, 1);
    EXPECT_EQ(match(cache, p, 1).blocks.size(), 1U);
    EXPECT_TRUE(match(cache, p, 2).blocks.empty());
}

TEST(PrefixCache, ForgetsTheLeastRecentlyUsedBeyondItsLimit) {
    PrefixCache cache(kBlock, 4, 4, true);
    const Prompt a({1, 1, 2, 2});
    const Prompt b({3, 3, 4, 4});
    const Prompt c({5, 5});
    compute_and_close(cache, a);
    compute_and_close(cache, b);
    compute_and_close(cache, a);  // used again: now b is older
    compute_and_close(cache, c);
    EXPECT_EQ(match(cache, a).blocks.size(), 2U);
    EXPECT_TRUE(match(cache, b).blocks.empty());
    EXPECT_EQ(match(cache, c).blocks.size(), 1U);
}

TEST(PrefixCache, ForgetsChildrenBeforeParents) {
    PrefixCache cache(kBlock, 4, 3, true);
    const Prompt parent({1, 1, 2, 2});
    const Prompt child({1, 1, 2, 2, 3, 3});
    compute_and_close(cache, parent);
    compute_and_close(cache, child);
    compute_and_close(cache, Prompt({9, 9}));  // one too many
    EXPECT_EQ(match(cache, child).blocks.size(), 2U);
    EXPECT_EQ(cache.idle_blocks(), 3U);
}

TEST(PrefixCache, BlocksHeldOpenOutliveTheirSegment) {
    PrefixCache cache(kBlock, 4, 2, true);
    const Prompt p({1, 1, 2, 2});
    compute_and_close(cache, p);
    const SeqId open = compute(cache, p);
    compute_and_close(cache, Prompt({7, 7, 8, 8}));  // pushes the segment out
    EXPECT_EQ(match(cache, p).blocks.size(), 2U);
    (void)cache.take_ops();
    cache.close(open);
    const auto ops = cache.take_ops();
    ASSERT_FALSE(ops.empty());
    EXPECT_EQ(ops[0].kind, Kind::kSave) << "it is not parked any more: saved again";
    EXPECT_EQ(match(cache, p).blocks.size(), 2U);
}

TEST(PrefixCache, LongPathsAreParkedInSegments) {
    PrefixCache cache(kBlock, 2, 1000, true);
    std::vector<TokenId> tokens(kBlock * (PrefixCache::kSegmentBlocks + 3));
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i);
    const Prompt p(tokens);
    const SeqId id = compute(cache, p);
    (void)cache.take_ops();
    cache.close(id);
    const std::uint32_t cut = PrefixCache::kSegmentBlocks * kBlock;
    EXPECT_THAT(cache.take_ops(), ElementsAre(KvOp{Kind::kSave, id, -1, SegmentId(1), 0, cut},
                                              KvOp{Kind::kSave, id, -1, SegmentId(2), cut, cut + 6},
                                              KvOp{Kind::kRemove, id, -1, kNone, 0, kToEnd}));
    EXPECT_EQ(match(cache, p).slack_blocks, 0U);
}

TEST(PrefixCache, RunsOutOfSequences) {
    PrefixCache cache(kBlock, 2, 100, true);
    const SeqId a = cache.open({}, 0);
    EXPECT_TRUE(cache.can_open());
    (void)cache.open({}, 0);
    EXPECT_FALSE(cache.can_open());
    cache.close(a);
    EXPECT_TRUE(cache.can_open());
}

TEST(PrefixCache, WithoutReuseNothingIsKept) {
    PrefixCache cache(kBlock, 4, 100, false);
    const Prompt p({1, 2, 3, 4});
    const SeqId a = cache.open({}, 0);
    EXPECT_FALSE(cache.commit(a, std::span(p.tokens).first(kBlock), p.block[0], p.sequence[0]));
    cache.close(a);
    EXPECT_EQ(cache.known_blocks(), 0U);
    EXPECT_TRUE(cache.take_events().empty());
}

TEST(PrefixCache, EventsNameParentsAndRunInOrder) {
    PrefixCache cache(kBlock, 4, 0, true);
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
    cache.close(a);
    const auto removed = cache.take_events();
    ASSERT_EQ(removed.size(), 1U) << "with no room to park, closing removes";
    EXPECT_THAT(std::get<protocol::KvRemoved>(removed[0].what).sequences,
                ElementsAre(p.sequence[1], p.sequence[0]));
    cache.reset();
    const auto cleared = cache.take_events();
    ASSERT_EQ(cleared.size(), 1U);
    EXPECT_EQ(cleared[0].seq.value, 3U);
    EXPECT_TRUE(std::holds_alternative<protocol::KvCleared>(cleared[0].what));
}

}  // namespace
}  // namespace stator::engine::llama
