#include "stator/routing/pool_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "stator/routing/fake_worker.h"
#include "stator/tokens/token_sequence.h"

namespace stator::routing {
namespace {

using ::testing::HasSubstr;

class PoolRouterTest : public ::testing::Test {
  protected:
    PoolRouterTest() {
        for (const char* name : {"a", "b", "c"}) {
            workers_.push_back(std::make_shared<FakeWorker>(
                name, loop_, std::map<std::string, std::string>{{"zone", name}}));
            ranks_.push_back({workers_.back(), 0, pending_});
        }
        numbers_ = router_.set_ranks(ranks_);
    }

    static protocol::GenerateRequest request(std::uint32_t first, std::size_t tokens = 640) {
        protocol::GenerateRequest r;
        for (std::size_t i = 0; i < tokens; ++i) {
            r.prompt.push_back(first + static_cast<std::uint32_t>(i));
        }
        return r;
    }
    Route choose(const protocol::GenerateRequest& r) {
        auto route = router_.choose(r, {});
        EXPECT_TRUE(route) << route.error().message;
        return route.value_or(Route{});
    }

    metrics::Registry registry_;
    ManualClock clock_;
    runtime::Loop loop_{"test"};
    std::shared_ptr<std::atomic<std::uint32_t>> pending_ =
        std::make_shared<std::atomic<std::uint32_t>>(0);
    std::vector<std::shared_ptr<FakeWorker>> workers_;
    std::vector<PoolRank> ranks_;
    PoolRouter router_{{}, card(), nullptr, registry_, clock_};
    std::vector<router::RankIndex> numbers_;
};

TEST_F(PoolRouterTest, PrefixesStayWhereTheyWereSent) {
    for (std::uint32_t prefix = 0; prefix < 6; ++prefix) {
        const Route first = choose(request(prefix * 10'000));
        EXPECT_EQ(first.cached_tokens, 0U);
        clock_.advance(std::chrono::milliseconds(120));
        router_.first_token(first, 0, clock_.now());
        router_.ended(first.booking);
        const Route second = choose(request(prefix * 10'000));
        EXPECT_EQ(second.rank, first.rank);
        EXPECT_GE(second.cached_tokens, 640U - 2 * kBlock);
        router_.ended(second.booking);
    }
}

TEST_F(PoolRouterTest, AdaptersGoWhereTheyAreAndShareNothing) {
    auto r = request(0);
    r.adapter = "fr";
    EXPECT_FALSE(router_.choose(r, {})) << "nobody has it";
    workers_[1]->set_adapters({"de", "fr"});
    (void)router_.set_ranks(ranks_);
    for (int i = 0; i < 5; ++i) {
        const Route route = choose(r);
        EXPECT_EQ(route.rank, numbers_[1]);
        router_.first_token(route, 0, clock_.now());
        router_.ended(route.booking);
    }
    EXPECT_GE(choose(r).cached_tokens, 640U - 2 * kBlock);
    EXPECT_THAT(router_.holders(r.prompt, 0), testing::IsEmpty()) << "of the model itself";
    EXPECT_THAT(router_.holders(r.prompt, 0, "fr"), testing::SizeIs(1));
    r.adapter = "de";
    EXPECT_EQ(choose(r).cached_tokens, 0U);
    workers_[1]->set_adapters({"de"});
    (void)router_.set_ranks(ranks_);
    r.adapter = "fr";
    EXPECT_FALSE(router_.choose(r, {}));
}

TEST_F(PoolRouterTest, WhatIsPredictedIsForgottenInTime) {
    const Route first = choose(request(0));
    router_.ended(first.booking);
    clock_.advance(std::chrono::minutes(10));
    (void)choose(request(50'000));  // upkeep comes with choices
    EXPECT_EQ(choose(request(0)).cached_tokens, 0U);
}

TEST_F(PoolRouterTest, ATenantsFloodEndsItsOwnGuesses) {
    constexpr std::size_t kQuota = 4 * 640 / kBlock;
    PoolRouterOptions options;
    options.index.max_predicted_per_tenant = kQuota;
    PoolRouter router(options, card(), nullptr, registry_, clock_);
    (void)router.set_ranks(ranks_);
    const auto send = [&](std::uint32_t first, std::string tenant) {
        auto r = request(first);
        r.tenant = std::move(tenant);
        const auto route = router.choose(r, {});
        EXPECT_TRUE(route);
        if (route) router.ended(route->booking);
    };
    const auto held = [&](std::uint32_t first) {
        const auto holders = router.holders(request(first).prompt, 0);
        return holders.empty() ? 0U : holders[0].device_blocks;
    };
    send(0, "light");
    send(10'000, "");
    for (std::uint32_t i = 1; i <= 50; ++i) send(1'000'000 + i * 10'000, "flood");
    EXPECT_EQ(held(0), 640 / kBlock);
    EXPECT_EQ(held(10'000), 640 / kBlock);
    EXPECT_EQ(held(1'000'000 + 50 * 10'000), 640 / kBlock);
    EXPECT_EQ(held(1'000'000 + 46 * 10'000), 0U);
    EXPECT_EQ(router.state().index.counters.quota_blocks, 46 * 640 / kBlock);
}

TEST_F(PoolRouterTest, LoadsOfWorkersCount) {
    workers_[0]->set_load(8, 8);
    workers_[1]->set_load(8, 8);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(choose(request(i * 7'000U)).rank, numbers_[2]);
    workers_[2]->set_load(8, 8);
    const auto refused = router_.choose(request(1), {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
}

TEST_F(PoolRouterTest, ExcludedAndPinnedRanks) {
    auto r = request(0);
    const router::RankIndex two[] = {numbers_[0], numbers_[1]};
    const auto third = router_.choose(r, two);
    ASSERT_TRUE(third);
    EXPECT_EQ(third->rank, numbers_[2]);
    r.hints = std::make_shared<protocol::RouteHints>();
    r.hints->worker = "b";
    EXPECT_EQ(choose(r).rank, numbers_[1]);
    r.hints->worker = "x";
    const auto missing = router_.choose(r, {});
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
    r.hints->worker.clear();
    r.hints->required_labels = {"zone=c"};
    EXPECT_EQ(choose(r).rank, numbers_[2]);
}

TEST_F(PoolRouterTest, SessionsStay) {
    auto r = request(0, 32);
    r.hints = std::make_shared<protocol::RouteHints>();
    r.hints->session = "s-1";
    const Route first = choose(r);
    for (std::uint32_t i = 1; i < 10; ++i) {
        auto next = request(i * 1'000, 32);
        next.hints = r.hints;
        EXPECT_EQ(choose(next).rank, first.rank);
    }
}

TEST_F(PoolRouterTest, ExplainsOnce) {
    auto r = request(0);
    r.hints = std::make_shared<protocol::RouteHints>();
    r.hints->explain = true;
    (void)choose(r);
    EXPECT_THAT(r.hints->explanation, HasSubstr("\"policy\":\"expected-ttft\""));
    EXPECT_THAT(r.hints->explanation, HasSubstr("\"worker\":\"c/0\""));
    EXPECT_THAT(r.hints->explanation, HasSubstr("\"prompt_tokens\":640"));
    r.hints->explanation.clear();
    (void)choose(r);
    EXPECT_EQ(r.hints->explanation, "");
}

TEST_F(PoolRouterTest, RanksComeAndGo) {
    const Route route = choose(request(0));
    std::vector<PoolRank> fewer{ranks_[1], ranks_[2]};
    const auto kept = router_.set_ranks(fewer);
    EXPECT_EQ(kept, (std::vector<router::RankIndex>{numbers_[1], numbers_[2]}));
    EXPECT_EQ(router_.state().ranks.size(), 2U);
    for (std::uint32_t i = 0; i < 20; ++i) {
        EXPECT_NE(choose(request(i * 3'000)).rank, numbers_[0]);
    }
    router_.ended(route.booking);
    EXPECT_TRUE(router_.set_ranks({}).empty());
    const auto nobody = router_.choose(request(0), {});
    ASSERT_FALSE(nobody);
    EXPECT_EQ(nobody.error().code, ErrorCode::kUnavailable);
}

TEST_F(PoolRouterTest, PoliciesChangeWhileItRuns) {
    router::PolicyOptions policy;
    policy.policy = router::Policy::kRoundRobin;
    ASSERT_TRUE(router_.set_policy(policy));
    std::set<router::RankIndex> seen;
    for (int i = 0; i < 3; ++i) seen.insert(choose(request(0)).rank);
    EXPECT_EQ(seen.size(), 3U);
    policy.error_band = -1;
    EXPECT_FALSE(router_.set_policy(policy));
    EXPECT_EQ(router_.state().policy.error_band, router::PolicyOptions{}.error_band);
}

TEST_F(PoolRouterTest, ManyThreadsBookAndEnd) {
    std::vector<std::thread> threads;
    for (std::uint32_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (std::uint32_t i = 0; i < 200; ++i) {
                const auto route = router_.choose(request(((t * 7 + i) % 10) * 5'000), {});
                if (!route) continue;
                router_.first_token(*route, route->cached_tokens, clock_.now());
                router_.ended(route->booking);
            }
        });
    }
    threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) {
            std::vector<PoolRank> some(ranks_.begin(), ranks_.begin() + 1 + i % 3);
            (void)router_.set_ranks(some);
        }
    });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(router_.state().bookings, 0U);
}

TEST(PoolIndexTest, AWritersEventsAreFound) {
    const auto index = std::make_shared<PoolIndex>(index::IndexOptions{});
    const auto slot = index->add_rank(5);
    ASSERT_TRUE(slot);
    IndexWriter writer(index, {slot});
    tokens::TokenSequence text(kBlock);
    for (tokens::TokenId i = 0; i < 8 * kBlock; ++i) text.push(i);
    protocol::KvStored stored;
    for (std::size_t i = 0; i < text.complete_blocks(); ++i) {
        stored.blocks.push_back({text.block_hashes()[i], text.sequence_hashes()[i], {}});
    }
    writer.apply(0, {protocol::EventSeq(1), stored});
    std::vector<router::Overlap> found;
    EXPECT_FALSE(index->lookup(text.sequence_hashes(), found));
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0], (router::Overlap{5, 8, 8}));
    const auto dumped = [&](std::size_t skip, std::size_t limit) {
        std::vector<tokens::SequenceHash> out;
        for (const auto& run : index->dump(*slot, skip, limit)) {
            EXPECT_EQ(run.tier, protocol::KvTier::kDevice);
            out.insert(out.end(), run.blocks.begin(), run.blocks.end());
        }
        return out;
    };
    const auto hashes = text.sequence_hashes();
    EXPECT_EQ(dumped(0, 100), std::vector(hashes.begin(), hashes.end()));
    EXPECT_EQ(dumped(2, 3), std::vector(hashes.begin() + 2, hashes.begin() + 5));
    EXPECT_TRUE(dumped(8, 1).empty());
    // A group that keeps part of the context: how far it reaches is not known.
    protocol::KvStored window;
    window.group = protocol::KvGroup::kSparse;
    writer.apply(0, {protocol::EventSeq(2), window});
    EXPECT_TRUE(index->lookup(hashes, found));
    EXPECT_EQ(found[0], (router::Overlap{5, 8, 8}));
    protocol::KvRemoved removed;
    removed.sequences = {text.sequence_hashes()[3]};
    writer.apply(0, {protocol::EventSeq(2), removed});
    index->lookup(text.sequence_hashes(), found);
    EXPECT_EQ(found[0], (router::Overlap{5, 3, 3}));
    writer.apply(7, {protocol::EventSeq(3), protocol::KvCleared{}});  // no such rank: nothing
    writer.reset(0);
    index->lookup(text.sequence_hashes(), found);
    EXPECT_TRUE(found.empty());
    EXPECT_FALSE(writer.is_live(0));
    writer.live(0, true, 2);
    EXPECT_TRUE(writer.is_live(0));
    index->remove_rank(*slot);
    EXPECT_EQ(index->size().blocks, 0U);
}

TEST(PoolIndexTest, LiveEventsThatDoNotFitThoseBeforeThemAreCounted) {
    const auto index = std::make_shared<PoolIndex>(index::IndexOptions{});
    IndexWriter writer(index, {index->add_rank(0), index->add_rank(1)});
    const auto stored = [](std::uint64_t parent, std::uint64_t block) {
        protocol::KvStored s;
        s.parent = tokens::SequenceHash(parent);
        s.blocks.push_back({{}, tokens::SequenceHash(block), {}});
        return protocol::KvEvent{protocol::EventSeq(1), s};
    };
    writer.apply(0, stored(1, 2));  // catching up: any order will do
    EXPECT_EQ(writer.orphans(0), 0U);
    writer.live(0, true, 1);
    writer.apply(0, stored(2, 3));
    EXPECT_EQ(writer.orphans(0), 0U);
    writer.apply(0, stored(8, 9));
    EXPECT_EQ(writer.orphans(0), 1U);
    EXPECT_EQ(writer.orphans(1), 0U);
}

TEST_F(PoolRouterTest, NobodyIsSuspectedWithoutEvents) {
    for (std::uint32_t i = 0; i < 50; ++i) {
        const Route route = choose(request(0));
        EXPECT_FALSE(route.audited);
        router_.first_token(route, i % 2 == 0 ? 640 : 0, clock_.now());
        router_.ended(route.booking);
    }
    EXPECT_TRUE(router_.concerns().empty());
}

}  // namespace
}  // namespace stator::routing
