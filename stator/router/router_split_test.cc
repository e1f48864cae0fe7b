#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/router/router.h"

// One rank for a whole request, or one for its prompt and another for its output.
namespace stator::router {
namespace {

using namespace std::chrono_literals;
using protocol::Role;
using testing::HasSubstr;

RankDescription rank(std::string name, Roles roles) {
    RankDescription d;
    d.name = std::move(name);
    d.roles = roles;
    d.prefill = {0.01, 1e-4, 0};  // 10,000 tokens a second
    d.step = {0.01, 1e-4, 0};
    d.handoff_latency_s = 0.005;
    d.handoff_s_per_token = 1e-6;
    return d;
}

PolicyOptions with(Disaggregation disaggregation) {
    PolicyOptions o;
    o.disaggregation = disaggregation;
    return o;
}

RouteRequest request(std::uint32_t prompt) {
    RouteRequest r;
    r.prompt_tokens = prompt;
    r.split = true;
    return r;
}

void decode_on(Router& router, RankIndex rank, std::uint32_t sequences) {
    protocol::LoadReport l;
    l.running = sequences;
    l.running_limit = 256;
    l.waiting_limit = 256;
    router.on_report(rank, l, BookingId(0));
}

TEST(RouterSplit, OnlyLongPromptsLeaveABusyDecodeRank) {
    Router router(with(Disaggregation::kConditional), 1);
    router.add_rank(rank("p", Role::kPrefill));
    router.add_rank(rank("d", Role::kDecode));
    decode_on(router, 1, 10);
    const auto longer = router.book(request(8000), 0ns);
    ASSERT_TRUE(longer);
    EXPECT_EQ(longer->chosen.rank, 0U);
    EXPECT_EQ(longer->chosen.decode_rank, 1U);
    router.on_end(longer->booking, 0ns);
    const auto shorter = router.book(request(4), 0ns);
    ASSERT_TRUE(shorter);
    EXPECT_EQ(shorter->chosen.rank, 1U);
    EXPECT_EQ(shorter->chosen.decode_rank, kNoRank);
    router.on_end(shorter->booking, 0ns);
    // Little is left of it to compute.
    RouteRequest cached = request(8000);
    const std::vector<Overlap> overlaps{{1, 499, 499}};
    cached.overlaps = overlaps;
    EXPECT_EQ(router.book(cached, 0ns)->chosen.rank, 1U);
}

TEST(RouterSplit, CanBeForced) {
    for (const bool always : {true, false}) {
        Router router(with(always ? Disaggregation::kAlways : Disaggregation::kNever), 1);
        router.add_rank(rank("p", Role::kPrefill));
        router.add_rank(rank("d", Role::kDecode));
        decode_on(router, 1, 20);
        for (const std::uint32_t prompt : {20U, 8000U}) {
            const auto d = router.book(request(prompt), 0ns);
            ASSERT_TRUE(d);
            EXPECT_EQ(d->chosen.rank, always ? 0U : 1U);
            EXPECT_EQ(d->chosen.decode_rank, always ? 1U : kNoRank);
        }
    }
}

TEST(RouterSplit, WithoutAPrefillRankItIsServedWhole) {
    Router router(with(Disaggregation::kAlways), 1);
    router.add_rank(rank("p", Role::kPrefill));
    router.add_rank(rank("d", Role::kDecode));
    RouteRequest r = request(8000);
    const std::vector<RankIndex> tried{0};
    r.excluded = tried;
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 1U);
    router.set_open(0, false);
    EXPECT_EQ(router.book(request(8000), 0ns)->chosen.rank, 1U);
    // Whom nobody may split goes to the decode rank in any case.
    router.set_open(0, true);
    r.split = false;
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 1U);
}

TEST(RouterSplit, ARankIsNotItsOwnDecoder) {
    Router router(with(Disaggregation::kAlways), 1);
    router.add_rank(rank("a", Roles{Role::kAggregated, Role::kPrefill, Role::kDecode}));
    router.add_rank(rank("b", Roles{Role::kAggregated, Role::kPrefill, Role::kDecode}));
    for (int i = 0; i < 8; ++i) {
        const auto d = router.book(request(1000), 0ns);
        ASSERT_TRUE(d);
        EXPECT_NE(d->chosen.rank, d->chosen.decode_rank);
        EXPECT_NE(d->chosen.decode_rank, kNoRank);
    }
}

TEST(RouterSplit, APrefillRankWhoseHandoffsNobodyTakesIsFull) {
    Router router(with(Disaggregation::kAlways), 1);
    router.add_rank(rank("p0", Role::kPrefill));
    router.add_rank(rank("p1", Role::kPrefill));
    router.add_rank(rank("d", Role::kDecode));
    protocol::LoadReport l;
    l.unclaimed_limit = 1'000'000;
    l.unclaimed_bytes = 950'000;
    router.on_report(0, l, BookingId(0));
    for (int i = 0; i < 4; ++i) EXPECT_EQ(router.book(request(1000), 0ns)->chosen.rank, 1U);
    l.unclaimed_bytes = 0;
    router.on_report(0, l, BookingId(0));
    EXPECT_EQ(router.book(request(1000), 0ns)->chosen.rank, 0U);
}

TEST(RouterSplit, RanksOfAPairHaveAWayToMoveTheHandoff) {
    Router router(with(Disaggregation::kAlways), 1);
    const auto at = [](std::string name, Role role, std::string host,
                       std::vector<std::string> methods) {
        RankDescription d = rank(std::move(name), role);
        d.host = std::move(host);
        d.transfer_methods = std::move(methods);
        return d;
    };
    router.add_rank(at("p", Role::kPrefill, "h1", {"shm", "tcp"}));
    router.add_rank(at("far", Role::kDecode, "h2", {"shm"}));
    // It has no common way but one within a host.
    EXPECT_EQ(router.book(request(1000), 0ns)->chosen.rank, 1U);
    const RankIndex tcp = router.add_rank(at("tcp", Role::kDecode, "h2", {"tcp"}));
    EXPECT_EQ(router.book(request(1000), 0ns)->chosen.decode_rank, tcp);
    const RankIndex near = router.add_rank(at("near", Role::kDecode, "h1", {"shm"}));
    EXPECT_EQ(router.book(request(1000), 0ns)->chosen.decode_rank, near);
}

TEST(RouterSplit, WhoCanOnlyDecodeGetsNoWholeRequests) {
    for (const auto way : {Disaggregation::kConditional, Disaggregation::kAlways}) {
        Router router(with(way), 1);
        Roles decodes(Role::kDecode);
        decodes.takes_no_whole();
        router.add_rank(rank("p", Role::kPrefill));
        router.add_rank(rank("d", decodes));
        for (const std::uint32_t prompt : {4U, 8000U}) {
            const auto split = router.book(request(prompt), 0ns);
            ASSERT_TRUE(split) << split.error().message;
            EXPECT_EQ(split->chosen.decode_rank, 1U);
        }
        RouteRequest whole = request(100);
        whole.split = false;
        EXPECT_EQ(router.book(whole, 0ns).error().code, ErrorCode::kUnavailable);
        const RankIndex both = router.add_rank(rank("a", Role::kAggregated));
        EXPECT_EQ(router.book(whole, 0ns)->chosen.rank, both);
    }
}

TEST(Roles, ThoseThatGenerateTakeWholeRequests) {
    const auto takes = [](Roles roles) {
        return (roles.bits() & Roles::takers(Role::kAggregated)) != 0;
    };
    Roles roles{Role::kPrefill, Role::kEncode};
    EXPECT_FALSE(takes(roles));
    roles.add(Role::kDecode);
    roles.add(Role::kAggregated);
    EXPECT_TRUE(takes(roles));
    roles.remove(Role::kDecode);
    EXPECT_TRUE(takes(roles));
    roles.remove(Role::kAggregated);
    EXPECT_FALSE(takes(roles));
    EXPECT_TRUE(roles.has(Role::kPrefill));
    EXPECT_FALSE(roles.has(Role::kDecode));
}

TEST(RouterSplit, MediaGoWhereTheirEmbeddingsCanBeHad) {
    Router router(with(Disaggregation::kConditional), 1);
    const auto at = [](std::string name, std::vector<std::string> methods) {
        RankDescription d = rank(std::move(name), Role::kAggregated);
        d.transfer_methods = std::move(methods);
        return d;
    };
    router.add_rank(at("none", {"none"}));
    router.add_rank(at("nixl", {"nixl"}));
    const std::vector<std::string> shm_tcp{"shm", "tcp"};
    RouteRequest pictures = request(100);
    pictures.media_methods = shm_tcp;
    const auto nobody = router.book(pictures, 0ns);
    ASSERT_FALSE(nobody);
    EXPECT_EQ(nobody.error().code, ErrorCode::kUnavailable);
    EXPECT_THAT(nobody.error().message, HasSubstr("no transfer method in common"));
    EXPECT_TRUE(router.book(request(100), 0ns));
    const RankIndex tcp = router.add_rank(at("tcp", {"tcp"}));
    const RankIndex unsaid = router.add_rank(at("unsaid", {}));
    for (int i = 0; i < 8; ++i) {
        const auto chosen = router.book(pictures, 0ns);
        ASSERT_TRUE(chosen);
        EXPECT_TRUE(chosen->chosen.rank == tcp || chosen->chosen.rank == unsaid);
    }
    const auto explained = router.explain(pictures, 0ns);
    EXPECT_THAT(to_json(explained, 8), HasSubstr("no way to take its media"));
}

TEST(RouterSplit, LearnsHowLongHandoffsTake) {
    Router router(with(Disaggregation::kConditional), 1);
    RankDescription d = rank("d", Role::kDecode);
    d.prior_std = 1.5;
    router.add_rank(rank("p", Role::kPrefill));
    router.add_rank(d);
    decode_on(router, 1, 20);
    Nanos now = 0ns;
    int split = 0;
    for (int i = 0; i < 40; ++i) {
        const auto taken = router.book(request(8000), now);
        ASSERT_TRUE(taken);
        if (taken->chosen.decode_rank == kNoRank) break;
        ++split;
        now += 810ms;
        router.on_first_token(taken->booking, 0, now);
        now += 10s;  // the network is a thousand times slower than thought
        router.on_handed_over(taken->booking, now);
        router.on_end(taken->booking, now);
    }
    EXPECT_GE(split, 1);
    EXPECT_LT(split, 20);
}

TEST(RouterSplit, EmbeddingsAreTakenFromWhoHoldsThemUnlessEncodingAgainIsSooner) {
    Router router;
    router.add_rank(rank("e0", Role::kEncode));
    router.add_rank(rank("e1", Role::kEncode));
    RouteRequest r;
    r.role = Role::kEncode;
    r.encode_s = 0.2;
    const std::vector<Overlap> held{{1, 1, 1}};
    r.overlaps = held;
    const auto first = router.book(r, 0ns);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->chosen.rank, 1U);
    EXPECT_EQ(first->chosen.encode_s, 0);
    decode_on(router, 1, 3);
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 0U);
    router.on_end(first->booking, 1s);
    EXPECT_EQ(router.ranks().columns().decoding[1], 3);
}

TEST(RouterSplit, TheExplanationShowsBothWays) {
    Router router(with(Disaggregation::kConditional), 1);
    router.add_rank(rank("p", Role::kPrefill));
    router.add_rank(rank("d", Role::kDecode));
    decode_on(router, 1, 20);
    const Explanation e = router.explain(request(8000), 0ns);
    ASSERT_TRUE(e.whole && e.split && e.chosen);
    EXPECT_EQ(e.whole->worker, "d");
    EXPECT_EQ(e.split->worker, "p");
    EXPECT_EQ(e.split->decode_worker, "d");
    EXPECT_LT(e.split->candidate.cost, e.whole->candidate.cost);
    EXPECT_EQ(e.ranks.size(), 2U);
    const std::string json = to_json(e);
    EXPECT_THAT(json, HasSubstr(R"("disaggregation":"conditional","alternatives":{"whole":{)"));
    EXPECT_THAT(json, HasSubstr(R"("prefill_and_decode":{"worker":"p","decode_worker":"d")"));
}

}  // namespace
}  // namespace stator::router
