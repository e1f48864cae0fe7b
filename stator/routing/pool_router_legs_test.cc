#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/routing/fake_worker.h"
#include "stator/routing/pool_router.h"

// Workers that do a part of a request.
namespace stator::routing {
namespace {

using protocol::Leg;
using protocol::Role;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PoolRouterLegsTest : public ::testing::Test {
  protected:
    void add(std::string name, std::vector<Role> roles, std::vector<std::string> methods = {"tcp"},
             std::string media_digest = {}, std::map<std::string, std::string> labels = {}) {
        workers_.push_back(std::make_shared<FakeWorker>(std::move(name), loop_, std::move(labels),
                                                        std::move(roles), std::move(methods),
                                                        std::move(media_digest)));
        ranks_.push_back({workers_.back(), 0, pending_});
        numbers_ = router_.set_ranks(ranks_);
    }
    static PoolRouterOptions always() {
        PoolRouterOptions o;
        o.policy.disaggregation = router::Disaggregation::kAlways;
        return o;
    }
    static protocol::GenerateRequest request(std::size_t tokens = 640) {
        protocol::GenerateRequest r;
        r.prompt.assign(tokens, 7);
        return r;
    }
    static protocol::Digest item(std::uint8_t n) {
        protocol::Digest d{};
        d[0] = n;
        return d;
    }
    Route split(const protocol::GenerateRequest& r) {
        auto route = router_.choose(r, {}, std::nullopt, true);
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
    PoolRouter router_{always(), card(), nullptr, registry_, clock_};
    std::vector<router::RankIndex> numbers_;
};

TEST_F(PoolRouterLegsTest, APairIsBookedAndItsDecodeRankGoesOn) {
    add("p", {Role::kPrefill});
    add("d", {Role::kDecode});
    const Route route = split(request());
    EXPECT_EQ(route.leg, Leg::kPrefill);
    EXPECT_EQ(route.rank, numbers_[0]);
    EXPECT_EQ(route.decode_rank, numbers_[1]);
    router_.prompt_computed(route, 0);
    clock_.advance(std::chrono::milliseconds(20));
    router_.handed_over(route, clock_.now());
    router_.ended(route.booking);
    EXPECT_EQ(router_.state().bookings, 0U);
    // Who may not be split is served whole by the decode rank.
    EXPECT_EQ(router_.choose(request(), {})->rank, numbers_[1]);
    EXPECT_EQ(router_.choose_decode(request(), {})->rank, numbers_[1]);
}

TEST_F(PoolRouterLegsTest, CountsWhatWasSplitAndWhatWasNotBySize) {
    add("p", {Role::kPrefill});
    add("d", {Role::kDecode});
    (void)split(request(640));
    protocol::GenerateRequest other = request(300);
    other.prompt.front() = 8;  // else its beginning is there
    (void)split(other);
    const std::string text = registry_.render();
    const auto count = [](std::string_view way, std::string_view below, int n) {
        return HasSubstr(fmt::format(R"(model="tiny",way="{}",le="{}"}} {})", way, below, n));
    };
    EXPECT_THAT(text, count("split", "256", 0));
    EXPECT_THAT(text, count("split", "384", 1));
    EXPECT_THAT(text, count("split", "768", 2));
    EXPECT_THAT(text, count("whole", "65536", 0));
    // Who may not be split is in neither.
    EXPECT_TRUE(router_.choose(request(), {}));
    EXPECT_THAT(registry_.render(), count("split", "65536", 2));
    EXPECT_THAT(registry_.render(), count("whole", "65536", 0));
}

TEST_F(PoolRouterLegsTest, StateTellsWhatWasSplitAndHowFastHandoffsAre) {
    add("d", {Role::kDecode});
    EXPECT_EQ(split(request()).leg, Leg::kWhole);
    EXPECT_EQ(router_.state().whole, 0U) << "there was no choice";
    EXPECT_FALSE(router_.state().can_split);
    add("p", {Role::kPrefill});
    const Route route = split(request(640));
    clock_.advance(std::chrono::milliseconds(5));
    router_.prompt_computed(route, 0);
    clock_.advance(std::chrono::milliseconds(20));
    router_.handed_over(route, clock_.now());
    router_.ended(route.booking);
    const auto all = router_.state();
    EXPECT_TRUE(all.can_split);
    EXPECT_EQ(all.split, 1U);
    EXPECT_EQ(all.whole, 0U);
    EXPECT_EQ(all.break_even_tokens, 640U);
    ASSERT_EQ(all.ways.size(), 1U);
    EXPECT_EQ(all.ways[0].from, "p/0");
    EXPECT_EQ(all.ways[0].to, "d/0");
    EXPECT_NEAR(all.ways[0].way.mean_s, 0.02, 1e-9);
    EXPECT_NEAR(all.ways[0].way.tokens_per_s, 32'000, 1);
    ASSERT_EQ(all.ranks.size(), 2U);
    EXPECT_TRUE(all.ranks[0].roles.has(Role::kDecode));
    EXPECT_TRUE(all.ranks[1].roles.has(Role::kPrefill));
    workers_[0]->set_load(3, 2);  // and no decision since
    EXPECT_EQ(router_.state().ranks[0].load.running, 3U);
    EXPECT_FALSE(router_.choose(request(), numbers_, std::nullopt, true));
    EXPECT_EQ(router_.state().refused, 1U);
    ranks_.pop_back();
    (void)router_.set_ranks(ranks_);
    EXPECT_TRUE(router_.state().ways.empty());
}

TEST_F(PoolRouterLegsTest, WhoCannotHandOverComputesNoPromptsForOthers) {
    add("p", {Role::kAggregated, Role::kPrefill}, {});
    add("d", {Role::kDecode});
    EXPECT_EQ(split(request()).leg, Leg::kWhole);
    EXPECT_THAT(router_.concerns(), ElementsAre(HasSubstr("p/0: it computes no prompts")));
}

TEST_F(PoolRouterLegsTest, SeveralRolesInOneWorker) {
    for (const char* name : {"a", "b"}) {
        add(name, {Role::kAggregated, Role::kPrefill, Role::kDecode, Role::kEncode});
    }
    const Route route = split(request());
    EXPECT_EQ(route.leg, Leg::kPrefill);
    EXPECT_NE(route.rank, route.decode_rank);
    EXPECT_TRUE(router_.choose_encode(item(1), {}));
    EXPECT_THAT(router_.concerns(), IsEmpty());
}

TEST_F(PoolRouterLegsTest, EncodersOfAPoolAreTheSame) {
    add("e", {Role::kEncode}, {"tcp"}, "one");
    add("other", {Role::kEncode}, {"tcp"}, "two");
    for (int i = 0; i < 6; ++i) {
        EXPECT_EQ(router_.choose_encode(item(static_cast<std::uint8_t>(i)), {})->rank, numbers_[0]);
    }
    EXPECT_THAT(router_.concerns(), ElementsAre(HasSubstr("other/0: it encodes no media")));
    // With the first one gone, the other is what the pool has.
    ranks_.erase(ranks_.begin());
    numbers_ = router_.set_ranks(ranks_);
    EXPECT_EQ(router_.choose_encode(item(1), {})->rank, numbers_[0]);
    EXPECT_THAT(router_.concerns(), IsEmpty());
}

TEST_F(PoolRouterLegsTest, AnItemGoesWhereItsEmbeddingsAre) {
    for (const char* name : {"e0", "e1", "e2"}) add(name, {Role::kEncode});
    const Route first = *router_.choose_encode(item(1), {});
    EXPECT_FALSE(first.held);
    const TimePoint chosen_at = clock_.now();
    clock_.advance(std::chrono::milliseconds(200));
    router_.encoded(first, item(1), chosen_at);
    router_.ended(first.booking);
    for (int i = 0; i < 5; ++i) {
        const Route again = *router_.choose_encode(item(1), {});
        EXPECT_EQ(again.rank, first.rank);
        EXPECT_TRUE(again.held);
        router_.ended(again.booking);
    }
    // Others have to do before it for longer than it takes anew.
    workers_[first.rank]->set_load(4, 0);
    EXPECT_NE(router_.choose_encode(item(1), {})->rank, first.rank);
    const std::vector<router::RankIndex> all = numbers_;
    EXPECT_FALSE(router_.choose_encode(item(1), all));
}

TEST_F(PoolRouterLegsTest, TheDecodeRankIsNearThePrefillRank) {
    add("p", {Role::kPrefill}, {"tcp"}, "", {{"zone", "a"}});
    add("far", {Role::kDecode}, {"tcp"}, "", {{"zone", "b"}});
    add("near", {Role::kDecode}, {"tcp"}, "", {{"zone", "a"}});
    for (int i = 0; i < 3; ++i) {
        const Route route = split(request(4000));
        EXPECT_EQ(route.decode_rank, numbers_[2]);
        router_.ended(route.booking);
    }
}

}  // namespace
}  // namespace stator::routing
