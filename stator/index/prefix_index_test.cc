#include "stator/index/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "stator/tokens/hash.h"

namespace stator::index {
namespace {

using protocol::KvTier;
using std::chrono::seconds;
using testing::ElementsAre;
using tokens::SequenceHash;
using Hashes = std::vector<SequenceHash>;

/// A chain of its own for each `root`.
Hashes chain(std::size_t blocks, std::uint64_t root = 1) {
    Hashes out;
    for (std::size_t i = 0; i < blocks; ++i) {
        const tokens::BlockHash block(root * 1'000'003 + i);
        out.push_back(i == 0 ? tokens::sequence_hash(block)
                             : tokens::sequence_hash(out.back(), block));
    }
    return out;
}

/// `common` and then other blocks.
Hashes fork(const Hashes& from, std::size_t common, std::size_t blocks, std::uint64_t label) {
    Hashes out(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(common));
    while (out.size() < blocks) {
        out.push_back(tokens::sequence_hash(out.back(), tokens::BlockHash(label)));
    }
    return out;
}

IndexOptions small() {
    IndexOptions o;
    o.max_ranks = 4096;
    o.max_blocks = 1 << 17;
    return o;
}

class PrefixIndexTest : public testing::Test {
  protected:
    explicit PrefixIndexTest(IndexOptions options = small()) : index_(options) {}

    RankSlot rank() { return index_.add_rank().value(); }
    void store(RankSlot r, std::span<const SequenceHash> blocks, KvTier tier = KvTier::kDevice) {
        index_.stored(r, tier, std::nullopt, blocks);
    }
    const Depths& device(std::span<const SequenceHash> request) {
        index_.lookup(request, overlap_);
        return overlap_.device();
    }

    PrefixIndex index_;
    Overlap overlap_;
};

TEST_F(PrefixIndexTest, CountsLeadingBlocks) {
    const Hashes request = chain(100);
    const RankSlot a = rank();
    const RankSlot b = rank();
    const RankSlot c = rank();
    store(a, request);
    store(b, std::span(request).first(40));
    const Depths& depths = device(request);
    EXPECT_EQ(depths.of(a), 100u);
    EXPECT_EQ(depths.of(b), 40u);
    EXPECT_EQ(depths.of(c), 0u);
    EXPECT_EQ(depths.deepest(), 100u);
    EXPECT_EQ(depths.holders(), 2u);
    EXPECT_EQ(index_.blocks(), 100u);
    EXPECT_EQ(device(chain(100, 2)).holders(), 0u);
    EXPECT_EQ(device({}).holders(), 0u);
}

TEST_F(PrefixIndexTest, FollowsForks) {
    const Hashes request = chain(50);
    const Hashes other = fork(request, 20, 60, 7);
    const RankSlot a = rank();
    const RankSlot b = rank();
    store(a, request);
    index_.stored(b, KvTier::kDevice, std::nullopt, std::span(request).first(20));
    index_.stored(b, KvTier::kDevice, request[19], std::span(other).subspan(20));
    EXPECT_EQ(device(other).of(a), 20u);
    EXPECT_EQ(device(other).of(b), 60u);
    EXPECT_EQ(device(request).of(b), 20u);
    EXPECT_EQ(index_.blocks(), 90u);
}

TEST_F(PrefixIndexTest, AHoleEndsThePrefixUntilItIsFilled) {
    const Hashes request = chain(100);
    const RankSlot a = rank();
    store(a, request);
    index_.removed(a, KvTier::kDevice, std::span(request).subspan(30, 1));
    EXPECT_EQ(device(request).of(a), 30u);
    index_.stored(a, KvTier::kDevice, request[29], std::span(request).subspan(30, 1));
    EXPECT_EQ(device(request).of(a), 100u);
    index_.removed(a, KvTier::kDevice, std::span(request).first(1));
    EXPECT_EQ(device(request).of(a), 0u);
    EXPECT_EQ(index_.blocks_of(a), 99u);
}

TEST_F(PrefixIndexTest, FreesWhatNobodyHoldsInTheMiddle) {
    const Hashes request = chain(1000);
    const RankSlot a = rank();
    store(a, request);
    const std::size_t before = index_.used_bytes();
    index_.removed(a, KvTier::kDevice, std::span(request).subspan(100, 800));
    EXPECT_LE(index_.blocks(), 208u);
    EXPECT_LT(index_.used_bytes(), before - 5000);
    EXPECT_EQ(device(request).of(a), 100u);
    index_.stored(a, KvTier::kDevice, request[99], std::span(request).subspan(100, 800));
    EXPECT_EQ(device(request).of(a), 1000u);
}

TEST_F(PrefixIndexTest, MemoriesCountTogetherAndAlone) {
    const Hashes request = chain(30);
    const RankSlot a = rank();
    const RankSlot b = rank();
    store(a, std::span(request).first(10));
    index_.stored(a, KvTier::kHost, request[9], std::span(request).subspan(10, 10));
    index_.stored(a, KvTier::kDisk, request[14], std::span(request).subspan(15, 15));
    store(b, std::span(request).first(5), KvTier::kHost);
    index_.lookup(request, overlap_);
    EXPECT_EQ(overlap_.device().of(a), 10u);
    EXPECT_EQ(overlap_.any().of(a), 30u);
    EXPECT_EQ(overlap_.device().of(b), 0u);
    EXPECT_EQ(overlap_.any().of(b), 5u);
    EXPECT_EQ(index_.blocks_of(a), 35u);
    index_.removed(a, KvTier::kHost, std::span(request).subspan(10, 10));
    index_.lookup(request, overlap_);
    EXPECT_EQ(overlap_.any().of(a), 10u);
}

TEST_F(PrefixIndexTest, CountsWhatIsOdd) {
    const Hashes request = chain(20);
    const RankSlot a = rank();
    store(a, request);
    store(a, request);
    EXPECT_EQ(index_.counters().stored_again, 20u);
    index_.removed(a, KvTier::kDevice, chain(3, 9));
    index_.removed(a, KvTier::kHost, std::span(request).first(2));
    EXPECT_EQ(index_.counters().removed_unknown, 5u);
    const Hashes orphan = chain(8, 5);
    index_.stored(a, KvTier::kDevice, orphan[3], std::span(orphan).subspan(4));
    EXPECT_EQ(index_.counters().unknown_parents, 1u);
    EXPECT_EQ(device(orphan).of(a), 0u);
    store(a, std::span(orphan).first(4));
    EXPECT_EQ(device(orphan).of(a), 8u);
    index_.stored(RankSlot(77), KvTier::kDevice, std::nullopt, request);
    EXPECT_EQ(index_.counters().ignored_events, 1u);
}

TEST_F(PrefixIndexTest, CountsEventsThatDoNotFitThoseBefore) {
    const Hashes blocks = chain(10);
    const auto rest = std::span(blocks).subspan(3);
    const RankSlot a = rank();
    const RankSlot b = rank();
    store(a, std::span(blocks).first(2));
    index_.stored(a, KvTier::kDevice, blocks[1], rest.first(1));
    EXPECT_EQ(index_.orphans_of(a), 0u);
    index_.stored(a, KvTier::kDevice, blocks[5], rest.subspan(4));  // nobody holds block 5
    EXPECT_EQ(index_.orphans_of(a), 1u);
    index_.stored(a, KvTier::kHost, blocks[5],
                  rest.subspan(4));  // other memories keep what they like
    EXPECT_EQ(index_.orphans_of(a), 1u);
    EXPECT_EQ(index_.orphans_of(b), 0u);
}

TEST_F(PrefixIndexTest, ARemovedRankIsGoneAtOnceAndItsSlotIsUsedAgain) {
    const Hashes request = chain(3000);
    const RankSlot a = rank();
    const RankSlot b = rank();
    store(a, request);
    store(b, std::span(request).first(10));
    index_.remove_rank(a);
    EXPECT_EQ(device(request).holders(), 1u);
    EXPECT_EQ(index_.blocks(), 3000u) << "freed by tidy()";
    int calls = 0;
    while (!index_.tidy({}, 1)) ++calls;
    EXPECT_GE(calls, 1) << "little by little";
    EXPECT_EQ(index_.blocks(), 10u);
    EXPECT_EQ(rank(), a);
    EXPECT_EQ(device(request).of(a), 0u);
}

TEST_F(PrefixIndexTest, AFullIndexRefusesRanks) {
    IndexOptions options = small();
    options.max_ranks = 2;
    PrefixIndex index(options);
    const RankSlot a = index.add_rank().value();
    ASSERT_TRUE(index.add_rank());
    const auto third = index.add_rank();
    ASSERT_FALSE(third);
    EXPECT_EQ(third.error().code, ErrorCode::kExhausted);
    index.remove_rank(a);
    EXPECT_EQ(index.add_rank().value(), a) << "frees what it needs";
}

TEST_F(PrefixIndexTest, ASnapshotReplacesAndAnExportIsOne) {
    const Hashes one = chain(50);
    const Hashes two = chain(60, 2);
    const RankSlot a = rank();
    const RankSlot b = rank();
    store(a, one);
    store(a, two, KvTier::kHost);
    store(b, chain(10, 3));
    std::vector<std::pair<KvTier, Hashes>> kept;
    index_.export_rank(a, [&](const HeldBlocks& held) {
        kept.emplace_back(held.tier, Hashes(held.blocks.begin(), held.blocks.end()));
    });
    std::vector<HeldBlocks> blocks;
    for (const auto& [tier, hashes] : kept) blocks.push_back({tier, hashes});
    index_.replace(b, blocks);
    EXPECT_EQ(device(one).of(b), 50u);
    index_.lookup(two, overlap_);
    EXPECT_EQ(overlap_.any().of(b), 60u);
    EXPECT_EQ(overlap_.device().of(b), 0u);
    EXPECT_EQ(device(chain(10, 3)).holders(), 0u);
}

TEST_F(PrefixIndexTest, TakesEventsAsTheyTravel) {
    const Hashes request = chain(4);
    const RankSlot a = rank();
    protocol::KvStored stored;
    for (const SequenceHash h : request) stored.blocks.push_back({{}, h, {}});
    index_.apply(a, {protocol::EventSeq(1), stored});
    EXPECT_EQ(device(request).of(a), 4u);
    index_.apply(a, {protocol::EventSeq(2), protocol::KvRemoved{{request[3]}, KvTier::kDevice}});
    EXPECT_EQ(device(request).of(a), 3u);
    index_.apply(a, {protocol::EventSeq(3), protocol::KvCleared{}});
    EXPECT_EQ(device(request).of(a), 0u);
    EXPECT_EQ(index_.blocks(), 0u);
}

TEST_F(PrefixIndexTest, PredictionsEndUnlessConfirmed) {
    const Hashes request = chain(30);
    const RankSlot a = rank();
    const TimePoint start{0};
    index_.predict(a, std::nullopt, request, start + seconds(10));
    EXPECT_EQ(device(request).of(a), 30u);
    EXPECT_EQ(index_.blocks_of(a), 0u) << "expected is not held";
    store(a, std::span(request).first(12));
    index_.tidy(start + seconds(9));
    EXPECT_EQ(device(request).of(a), 30u);
    index_.predict(a, std::nullopt, std::span(request).first(20), start + seconds(20));
    index_.tidy(start + seconds(10));
    EXPECT_EQ(device(request).of(a), 20u) << "prolonged";
    index_.removed(a, KvTier::kDevice, std::span(request).subspan(15, 1));
    EXPECT_EQ(device(request).of(a), 15u) << "an event says that it is not there";
    index_.tidy(start + seconds(20));
    EXPECT_EQ(device(request).of(a), 12u) << "confirmed ones stay";
}

class QuotaTest : public PrefixIndexTest {
  protected:
    explicit QuotaTest(std::size_t quota = 100) : PrefixIndexTest(with(quota)) {}
    static IndexOptions with(std::size_t quota) {
        IndexOptions o = small();
        o.max_predicted_per_tenant = quota;
        return o;
    }
    void predict(RankSlot r, std::span<const SequenceHash> blocks, std::uint64_t tenant) {
        index_.predict(r, std::nullopt, blocks, TimePoint{} + seconds(10), tenant);
    }
};

TEST_F(QuotaTest, AFloodEndsTheFloodersOwnOldestPredictions) {
    constexpr std::uint64_t kFlooder = 5;
    const RankSlot a = rank();
    const RankSlot b = rank();
    const Hashes other = chain(100, 1);
    const Hashes nobodys = chain(60, 2);
    predict(a, other, 7);
    predict(b, nobodys, 0);
    for (std::uint64_t i = 0; i < 1000; ++i)
        predict(i % 2 == 0 ? a : b, chain(30, 100 + i), kFlooder);
    EXPECT_EQ(device(other).of(a), 100u);
    EXPECT_EQ(device(nobodys).of(b), 60u);
    EXPECT_EQ(index_.predicted_of(kFlooder), 100u);
    EXPECT_EQ(index_.counters().quota_blocks, 30u * 1000 - 100);
    for (std::uint64_t i = 997; i < 1000; ++i) {
        EXPECT_EQ(device(chain(30, 100 + i)).deepest(), 30u) << i;
    }
    EXPECT_EQ(device(chain(30, 100 + 996)).deepest(), 10u) << "leading blocks stay longest";
    EXPECT_EQ(device(chain(30, 100 + 995)).deepest(), 0u);
}

TEST_F(QuotaTest, OfALongRequestTheBeginningIsTaken) {
    const RankSlot a = rank();
    predict(a, chain(250), 3);
    EXPECT_EQ(device(chain(250)).of(a), 100u);
    EXPECT_EQ(index_.counters().quota_blocks, 150u);
}

TEST_F(QuotaTest, ABlockBelongsToWhoPredictedItLast) {
    const RankSlot a = rank();
    const Hashes shared = chain(40);
    predict(a, shared, 1);
    predict(a, shared, 2);
    EXPECT_EQ(index_.predicted_of(1), 0u);
    EXPECT_EQ(index_.predicted_of(2), 40u);
    EXPECT_EQ(index_.predicting_tenants(), 1u);
    for (std::uint64_t i = 0; i < 10; ++i) predict(a, chain(50, 10 + i), 1);
    EXPECT_EQ(device(shared).of(a), 40u) << "no longer theirs to end";
    store(a, std::span(shared).first(15));
    EXPECT_EQ(index_.predicted_of(2), 25u) << "what is confirmed is nobody's guess";
    for (std::uint64_t i = 0; i < 10; ++i) predict(a, chain(50, 30 + i), 2);
    EXPECT_EQ(device(shared).of(a), 15u) << "confirmed blocks stay";
    index_.removed(a, KvTier::kDevice, std::span(shared).first(1));
    EXPECT_EQ(index_.predicted_of(2), 100u);
}

TEST_F(QuotaTest, RanksThatLeftDoNotCount) {
    const RankSlot a = rank();
    const RankSlot b = rank();
    predict(b, chain(60, 1), 1);
    predict(a, chain(40, 2), 1);
    index_.remove_rank(a);
    predict(b, chain(40, 3), 1);
    EXPECT_EQ(device(chain(60, 1)).of(b), 60u);
    EXPECT_EQ(device(chain(40, 3)).of(b), 40u);
    EXPECT_EQ(index_.predicted_of(1), 100u);
}

TEST_F(QuotaTest, NothingIsKeptOfAMillionTenantsWhoseTimeIsOver) {
    const RankSlot a = rank();
    TimePoint now;
    std::size_t most_bytes = 0;
    std::size_t most_tenants = 0;
    for (std::uint64_t tenant = 1; tenant <= 1'000'000; ++tenant) {
        const SequenceHash block(tenant * 0x9e3779b97f4a7c15U);
        index_.predict(a, std::nullopt, std::span(&block, 1), now + std::chrono::nanoseconds(2000),
                       tenant);
        now = now + std::chrono::nanoseconds(1);
        if (tenant % 1000 != 0) continue;
        most_bytes = std::max(most_bytes, index_.used_bytes());
        index_.tidy(now);
        most_tenants = std::max(most_tenants, index_.predicting_tenants());
    }
    EXPECT_LE(most_tenants, 2000u);
    EXPECT_LT(most_bytes, 4u << 20);
    while (!index_.tidy(now + seconds(1))) {
    }
    EXPECT_EQ(index_.predicting_tenants(), 0u);
    EXPECT_EQ(index_.blocks(), 0u);
    EXPECT_EQ(index_.counters().quota_blocks, 0u);
    EXPECT_LT(index_.used_bytes(), 1u << 19);
}

TEST(Quotas, BytesBoundLiveTenantsToo) {
    IndexOptions options = small();
    options.max_bytes = 4 << 20;
    options.max_predicted_per_tenant = 10;
    PrefixIndex index(options);
    const RankSlot a = index.add_rank().value();
    for (std::uint64_t tenant = 1; tenant <= 200'000; ++tenant) {
        const SequenceHash block(tenant * 0x9e3779b97f4a7c15U);
        index.predict(a, std::nullopt, std::span(&block, 1), TimePoint{} + seconds(10), tenant);
        ASSERT_LE(index.used_bytes(), options.max_bytes) << tenant;
    }
    EXPECT_GT(index.counters().evicted_blocks, 100'000u);
    EXPECT_EQ(index.predicting_tenants(), index.blocks());
    EXPECT_GT(index.blocks(), 5'000u);
}

TEST_F(PrefixIndexTest, SparseGroupsMakeDepthsUpperBounds) {
    const Hashes request = chain(10);
    const RankSlot a = rank();
    store(a, request);
    device(request);
    EXPECT_FALSE(overlap_.upper_bound());
    index_.stored(a, KvTier::kDevice, std::nullopt, chain(10, 4), KvGroup::kSparse);
    EXPECT_EQ(device(chain(10, 4)).of(a), 0u);
    EXPECT_EQ(device(request).of(a), 10u);
    EXPECT_TRUE(overlap_.upper_bound());
    EXPECT_EQ(index_.counters().sparse_blocks, 10u);
    index_.remove_rank(a);
    device(request);
    EXPECT_FALSE(overlap_.upper_bound());
}

TEST_F(PrefixIndexTest, ThousandsShareASystemPrompt) {
    const Hashes first = chain(500);
    std::vector<RankSlot> ranks;
    for (int i = 0; i < 3000; ++i) ranks.push_back(rank());
    store(ranks[0], first);
    for (std::size_t i = 1; i < ranks.size(); ++i) {
        store(ranks[i], fork(first, 33, 33 + i % 5, i));  // not at the end of a cache line
    }
    const Depths& depths = device(first);
    EXPECT_EQ(depths.holders(), 3000u);
    EXPECT_EQ(depths.of(ranks[0]), 500u);
    for (std::size_t i = 1; i < ranks.size(); ++i) ASSERT_EQ(depths.of(ranks[i]), 33u);
    RankDepth best[3];
    ASSERT_EQ(depths.top(best), 3u);
    EXPECT_THAT(best, ElementsAre(RankDepth{ranks[0], 500}, RankDepth{ranks[1], 33},
                                  RankDepth{ranks[2], 33}));
    for (std::size_t i = 1; i < ranks.size(); i += 2) {
        index_.removed(ranks[i], KvTier::kDevice, std::span(first).subspan(5, 28));
    }
    for (std::size_t i = 1; i < ranks.size(); ++i) {
        ASSERT_EQ(device(first).of(ranks[i]), i % 2 == 1 ? 5u : 33u);
        if (i > 40) i += 100;
    }
}

TEST_F(PrefixIndexTest, FloodsOfOneRankAreBounded) {
    IndexOptions options = small();
    options.max_blocks_per_rank = 500;
    PrefixIndex index(options);
    const RankSlot a = index.add_rank().value();
    const RankSlot b = index.add_rank().value();
    const Hashes good = chain(100);
    index.stored(b, KvTier::kDevice, std::nullopt, good);
    for (std::uint64_t i = 0; i < 5000; ++i) {
        const SequenceHash fake(i << 40);  // nearly equal for many tables
        index.stored(a, KvTier::kDevice, std::nullopt, std::span(&fake, 1));
    }
    EXPECT_EQ(index.blocks_of(a), 500u);
    EXPECT_EQ(index.counters().refused_blocks, 4500u);
    Overlap overlap;
    index.lookup(good, overlap);
    EXPECT_EQ(overlap.device().of(b), 100u);
}

TEST_F(PrefixIndexTest, DropsWhatIsOldWhenBytesRunOut) {
    IndexOptions options = small();
    options.max_bytes = 2 << 20;
    PrefixIndex index(options);
    const RankSlot a = index.add_rank().value();
    for (std::uint64_t i = 0; i < 2000; ++i) {
        index.stored(a, KvTier::kDevice, std::nullopt, chain(200, 10 + i));
        ASSERT_LE(index.used_bytes(), options.max_bytes);
    }
    EXPECT_LE(index.memory_bytes(), options.max_bytes * 5 / 4);
    EXPECT_GT(index.evicted_of(a), 100'000u);
    EXPECT_EQ(index.evicted_of(a), index.counters().evicted_blocks);
    EXPECT_EQ(index.blocks_of(a) + index.evicted_of(a), 400'000u);
    Overlap overlap;
    int recent = 0;
    for (std::uint64_t i = 1950; i < 2000; ++i) {
        index.lookup(chain(200, 10 + i), overlap);
        recent += overlap.device().of(a) == 200;
    }
    EXPECT_GE(recent, 45);
}

TEST_F(PrefixIndexTest, TheNumberOfBlocksIsBounded) {
    IndexOptions options = small();
    options.max_blocks = 4096;
    PrefixIndex index(options);
    const RankSlot a = index.add_rank().value();
    for (std::uint64_t i = 0; i < 100; ++i) {
        index.stored(a, KvTier::kDevice, std::nullopt, chain(300, 10 + i));
        ASSERT_LE(index.blocks(), 4200u);
    }
    Overlap overlap;
    index.lookup(chain(300, 109), overlap);
    EXPECT_GT(overlap.device().of(a), 0u);
}

TEST_F(PrefixIndexTest, GivesItsMemoryBack) {
    for (int i = 0; i < 8; ++i) {
        const RankSlot r = rank();
        for (std::uint64_t j = 0; j < 20; ++j) store(r, chain(500, r.value * 100 + j + 1));
    }
    const std::size_t full = index_.memory_bytes();
    EXPECT_GT(full, 80'000u * 8);
    EXPECT_LT(full, 80'000u * 24);
    EXPECT_LE(index_.used_bytes(), full);
    for (std::uint32_t r = 0; r < 8; ++r) index_.remove_rank(RankSlot(r));
    while (!index_.tidy({})) {
    }
    EXPECT_LT(index_.memory_bytes(), 100'000u);
    EXPECT_EQ(index_.blocks(), 0u);
    EXPECT_EQ(index_.runs(), 0u);
}

}  // namespace
}  // namespace stator::index
