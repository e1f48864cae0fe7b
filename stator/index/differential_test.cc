// The index against the plain model under random histories: stored and removed in every order and
// memory, holes, ranks that leave and slots that are used again, snapshots, predictions. Any
// difference fails, one block too many above all. STATOR_SEED repeats a run.

#include <gtest/gtest.h>

#include <cstdlib>

#include "stator/index/index_model_fixture.h"

namespace stator::index {
namespace {

IndexOptions small() {
    IndexOptions o;
    o.max_ranks = 256;
    o.max_blocks = 1 << 16;
    return o;
}

class Differential : public testing::Test {
  protected:
    static void expect_none(const IndexOptions& options, const HistoryShape& shape, int histories) {
        const char* given = std::getenv("STATOR_SEED");
        const std::uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
        for (std::uint64_t seed = first; seed < first + static_cast<std::uint64_t>(histories);
             ++seed) {
            PrefixIndex index(options);
            const auto difference = find_difference(index, options, shape, seed);
            ASSERT_FALSE(difference) << "STATOR_SEED=" << seed << ": " << *difference;
            EXPECT_EQ(index.counters().evicted_blocks > 0, shape.lossy);
            EXPECT_EQ(index.counters().quota_blocks > 0, options.max_predicted_per_tenant > 0);
        }
    }
};

TEST_F(Differential, FewRanks) { expect_none(small(), {}, 30); }

TEST_F(Differential, DeviceMemoryAlone) {
    expect_none(small(), {.lower_tiers = false, .predictions = false}, 30);
}

TEST_F(Differential, ManyRanksWithTheSamePrefixes) {
    expect_none(small(), {.ranks = 150, .longest = 40, .fork_percent = 2, .steps = 3000}, 4);
}

TEST_F(Differential, LongRequests) {
    expect_none(small(), {.ranks = 4, .longest = 5000, .fork_percent = 0, .steps = 150}, 4);
}

TEST_F(Differential, ManyForks) {
    expect_none(small(), {.longest = 30, .fork_percent = 60, .steps = 1000}, 15);
}

TEST_F(Differential, RanksAtTheirBound) {
    IndexOptions options = small();
    options.max_blocks_per_rank = 100;
    expect_none(options, {.longest = 80}, 30);
}

TEST_F(Differential, TenantsAtTheirQuotas) {
    IndexOptions options = small();
    options.max_predicted_per_tenant = 25;
    expect_none(options, {.longest = 80, .tenants = 4}, 30);
    expect_none(options, {.ranks = 40, .longest = 30, .fork_percent = 30, .tenants = 3}, 10);
    options.max_predicted_per_tenant = 3;
    options.max_blocks_per_rank = 100;
    expect_none(options, {.longest = 60, .tenants = 5}, 20);
}

TEST_F(Differential, LongRequestsWithinQuotas) {
    IndexOptions options = small();
    options.max_predicted_per_tenant = 1200;
    expect_none(options,
                {.ranks = 4, .longest = 5000, .fork_percent = 0, .tenants = 2, .steps = 150}, 3);
}

TEST_F(Differential, TooFewBytesWithQuotas) {
    IndexOptions options = small();
    options.max_bytes = 40'000;
    options.max_predicted_per_tenant = 150;
    expect_none(options,
                {.longest = 400, .fork_percent = 3, .tenants = 3, .lossy = true, .steps = 800}, 10);
}

TEST_F(Differential, TooFewBytes) {
    IndexOptions options = small();
    options.max_bytes = 40'000;
    expect_none(options, {.longest = 400, .fork_percent = 3, .lossy = true, .steps = 800}, 10);
}

TEST_F(Differential, TooFewBlocks) {
    IndexOptions options = small();
    options.max_blocks = 600;
    expect_none(options, {.longest = 200, .fork_percent = 10, .lossy = true, .steps = 800}, 10);
}

/// Forgets one block of one event, once.
class Forgetful : public PrefixIndex {
  public:
    using PrefixIndex::PrefixIndex;
    void removed(RankSlot rank, protocol::KvTier tier,
                 std::span<const tokens::SequenceHash> blocks) {
        const std::size_t before = blocks_of(rank);
        PrefixIndex::removed(rank, tier, blocks.first(1));
        if (blocks_of(rank) != before && ++calls_ == 20) {
            stored(rank, tier, std::nullopt, blocks.first(1));
        }
        PrefixIndex::removed(rank, tier, blocks.subspan(1));
    }

  private:
    int calls_ = 0;
};

/// Forgets to clear a rank, once.
class Sticky : public PrefixIndex {
  public:
    using PrefixIndex::PrefixIndex;
    void cleared(RankSlot rank) {
        if (++calls_ != 3) PrefixIndex::cleared(rank);
    }

  private:
    int calls_ = 0;
};

/// Takes one tenant's predictions for another's, now and then.
class Confused : public PrefixIndex {
  public:
    using PrefixIndex::PrefixIndex;
    void predict(RankSlot rank, std::optional<tokens::SequenceHash> parent,
                 std::span<const tokens::SequenceHash> blocks, TimePoint expires_at,
                 std::uint64_t tenant) {
        PrefixIndex::predict(rank, parent, blocks, expires_at,
                             ++calls_ % 10 == 0 ? tenant + 1 : tenant);
    }

  private:
    int calls_ = 0;
};

template <typename Broken>
int histories_that_find(const IndexOptions& options = small(), const HistoryShape& shape = {}) {
    int found = 0;
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        Broken index(options);
        found += find_difference(index, options, shape, seed).has_value();
    }
    return found;
}

TEST_F(Differential, FindsOneForgottenRemoval) { EXPECT_GE(histories_that_find<Forgetful>(), 5); }
TEST_F(Differential, FindsOneForgottenClear) { EXPECT_GE(histories_that_find<Sticky>(), 5); }
TEST_F(Differential, FindsPredictionsOfAnotherTenant) {
    IndexOptions options = small();
    options.max_predicted_per_tenant = 40;
    EXPECT_GE(histories_that_find<Confused>(options, {.fork_percent = 30, .tenants = 3}), 5);
}

}  // namespace
}  // namespace stator::index
