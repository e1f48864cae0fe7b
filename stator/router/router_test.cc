#include "stator/router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>
#include <map>
#include <numeric>
#include <set>

namespace stator::router {
namespace {

using namespace std::chrono_literals;
using protocol::Role;
using testing::HasSubstr;

RankDescription rank(std::string name, Role role = Role::kAggregated) {
    RankDescription d;
    d.name = std::move(name);
    d.roles = role;
    d.prefill = {0.01, 1e-4, 0};  // 10,000 tokens a second
    d.step = {0.01, 1e-4, 0};
    return d;
}

protocol::LoadReport load(std::uint32_t running = 0, std::uint32_t waiting = 0) {
    protocol::LoadReport l;
    l.running = running;
    l.waiting = waiting;
    l.running_limit = 16;
    l.waiting_limit = 16;
    return l;
}

/// A router with so many equal ranks.
Router router_of(std::size_t ranks, PolicyOptions options = {}, std::uint64_t seed = 1) {
    Router router(options, seed);
    for (std::size_t i = 0; i < ranks; ++i) {
        const RankIndex r = router.add_rank(rank("w" + std::to_string(i)));
        router.on_report(r, load(), BookingId(0));
    }
    return router;
}

PolicyOptions with(Policy policy) {
    PolicyOptions o;
    o.policy = policy;
    return o;
}

RouteRequest request(std::uint32_t prompt_tokens) {
    RouteRequest r;
    r.prompt_tokens = prompt_tokens;
    return r;
}

std::vector<std::uint64_t> hashes(std::size_t n, std::uint64_t first) {
    std::vector<std::uint64_t> h(n);
    std::iota(h.begin(), h.end(), first * 1'000'003);
    return h;
}

TEST(Router, PredictsQueuePrefillAndOnboarding) {
    Router router(with(Policy::kExpectedTtft), 1);
    RankDescription d = rank("w");
    d.onboarding_s_per_token = 1e-5;
    router.add_rank(d);
    const auto first = router.book(request(5000), 0ns);
    ASSERT_TRUE(first);
    EXPECT_NEAR(first->chosen.ttft_s(), 0.51, 1e-6);
    // Behind it, with 1,600 tokens in device memory and 800 more in host memory.
    RouteRequest second = request(4000);
    const Overlap overlap{0, 100, 150};
    second.overlaps = {&overlap, 1};
    const auto later = router.book(second, 100ms);
    ASSERT_TRUE(later);
    EXPECT_NEAR(later->chosen.queue_s, 0.41, 1e-6);
    EXPECT_EQ(later->chosen.cached_tokens, 2400U);
    EXPECT_NEAR(later->chosen.prefill_s, 0.17, 1e-6);
    EXPECT_NEAR(later->chosen.onboarding_s, 0.008, 1e-6);
    EXPECT_NEAR(later->chosen.ttft_s(), 0.41 + 0.17 + 0.008, 1e-6);
}

TEST(Router, RanksThatNobodySawAtWorkAreTakenToBeAsFastAsTheOthers) {
    // Ten times as fast as the prior: who answered first must not get everything.
    Router router = router_of(2);
    Nanos now{0};
    std::array<int, 2> sent{};
    for (int i = 0; i < 200; ++i, now += 1ms) {
        const auto d = router.book(request(100), now);
        ASSERT_TRUE(d);
        ++sent[d->chosen.rank];
        if (d->chosen.rank == 0) {
            router.on_first_token(d->booking, 0, now + 1ms);
            router.on_end(d->booking, now + 1ms);
        }
        if (i == 20) {
            EXPECT_GT(sent[1], 0);
        }
    }
    EXPECT_GT(router.ranks().speed(1).prefill_scale().scale(), 0);
    EXPECT_LT(router.ranks().speed(1).prefill_scale().scale(), 0.7);
}

TEST(Router, PrefersACachedPrefixUntilItsQueueIsLonger) {
    Router router = router_of(2);
    const Overlap overlap{0, 500, 500};
    RouteRequest r = request(8192);
    r.overlaps = {&overlap, 1};
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 0U);
    // Two seconds of other prompts there: the idle rank computes everything sooner.
    RouteRequest pinned = request(20'000);
    pinned.pinned = 0;
    ASSERT_TRUE(router.book(pinned, 0ns));
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 1U);
}

TEST(Router, FirstTokensAndEndsCorrectTheQueue) {
    Router router = router_of(1);
    const auto a = router.book(request(10'000), 0ns);
    const auto b = router.book(request(10'000), 0ns);
    // The first one takes longer than thought: those behind it still wait for all of theirs.
    EXPECT_NEAR(router.ranks().queue_s(0, 1, 1.5), 1.0, 0.02);
    router.on_first_token(a->booking, 0, 2s);
    EXPECT_NEAR(router.ranks().queue_s(0, 1, 2.0), 1.0, 0.02);
    router.on_end(b->booking, 2s);
    EXPECT_EQ(router.ranks().queue_s(0, 1, 2.0), 0);
    router.on_end(a->booking, 3s);
    router.on_end(a->booking, 3s);
    EXPECT_EQ(router.bookings(), 0U);
    EXPECT_EQ(router.ranks().columns().requests[0], 0U);
}

TEST(Router, LearnsThatARankIsSlow) {
    Router router = router_of(2);
    Nanos now{0};
    for (int i = 0; i < 30; ++i) {
        RouteRequest r = request(10'000);
        r.pinned = 0;
        const auto d = router.book(r, now);
        now += 3s;
        router.on_first_token(d->booking, 0, now);
        router.on_end(d->booking, now);
    }
    EXPECT_NEAR(router.ranks().speed(0).prefill_scale().scale(), 3, 0.1);
    const Explanation e = router.explain(request(10'000), now);
    ASSERT_TRUE(e.chosen);
    EXPECT_EQ(e.chosen->candidate.rank, 1U);
    ASSERT_EQ(e.ranks.size(), 2U);
    EXPECT_NEAR(e.ranks[1].candidate.prefill_s, 3, 0.1);
}

TEST(Router, HigherPriorityDoesNotWaitForLower) {
    Router router = router_of(1);
    RouteRequest low = request(10'000);
    low.priority = -1;
    ASSERT_TRUE(router.book(low, 0ns));
    ASSERT_TRUE(router.book(request(5000), 0ns));
    RouteRequest high = request(1000);
    high.priority = 1;
    EXPECT_NEAR(router.book(high, 0ns)->chosen.queue_s, 0, 1e-6);
    EXPECT_NEAR(router.book(request(1000), 0ns)->chosen.queue_s, 0.6, 0.02);
    low.prompt_tokens = 1000;
    EXPECT_NEAR(router.book(low, 0ns)->chosen.queue_s, 1.71, 0.02);
}

TEST(Router, ABurstOfSiblingsStaysTogether) {
    Router router = router_of(16);
    for (const std::size_t different : {0U, 1U}) {
        std::set<RankIndex> used;
        std::vector<BookingId> booked;
        for (std::size_t i = 0; i < 64; ++i) {
            std::vector<std::uint64_t> blocks = hashes(512, 7 + different);
            if (different != 0) blocks.back() = i;
            RouteRequest r = request(8192);
            r.blocks = blocks;
            const auto d = router.book(r, 0ns);
            ASSERT_TRUE(d);
            booked.push_back(d->booking);
            if (d->chosen.cached_tokens < 7900) used.insert(d->chosen.rank);
        }
        EXPECT_LE(used.size(), 3U);
        for (const BookingId id : booked) router.on_end(id, 10s);
    }
}

TEST(Router, EqualRanksGetEqualShares) {
    for (const Policy policy :
         {Policy::kExpectedTtft, Policy::kLeastLoaded, Policy::kDynamo, Policy::kRandom}) {
        std::map<RankIndex, int> taken;
        Router router = router_of(4, with(policy));
        for (int i = 0; i < 2000; ++i) {
            const auto d = router.book(request(1000), i * 1s);
            ++taken[d->chosen.rank];
            router.on_first_token(d->booking, 0, i * 1s + 110ms);
            router.on_end(d->booking, i * 1s + 500ms);
        }
        for (RankIndex r = 0; r < 4; ++r) EXPECT_NEAR(taken[r], 500, 120) << to_string(policy);
    }
}

TEST(Router, ReportsAndBookingsCountEachRequestOnce) {
    Router router = router_of(1, with(Policy::kLeastLoaded));
    const auto& requests = router.ranks().columns().requests;
    const auto a = router.book(request(100), 0ns);
    const auto b = router.book(request(100), 0ns);
    EXPECT_EQ(requests[0], 2U);
    // A report from between the two: it has the first, and three of other frontends.
    router.on_report(0, load(4), a->booking);
    EXPECT_EQ(requests[0], 5U);
    router.on_report(0, load(5), b->booking);
    EXPECT_EQ(requests[0], 5U);
    router.on_end(a->booking, 1s);
    EXPECT_EQ(requests[0], 4U);
    router.on_report(0, load(4), b->booking);
    EXPECT_EQ(requests[0], 4U);
    router.on_end(b->booking, 1s);
    router.on_report(0, load(0), b->booking);
    EXPECT_EQ(requests[0], 0U);
}

TEST(Router, OthersQueueCountsInSeconds) {
    Router router = router_of(2);
    protocol::LoadReport busy = load(1, 3);
    busy.waiting_tokens = 20'000;
    router.on_report(0, busy, BookingId(0));
    EXPECT_NEAR(router.ranks().queue_s(0, 1, 0), 2.0, 0.01);
    EXPECT_EQ(router.book(request(5000), 0ns)->chosen.rank, 1U);
}

TEST(Router, FullAndAbsentRanksAreRefusedWithTheReason) {
    Router router(with(Policy::kExpectedTtft), 1);
    EXPECT_EQ(router.book(request(1), 0ns).error().code, ErrorCode::kUnavailable);
    router.add_rank(rank("w"));
    router.on_report(0, load(16, 16), BookingId(0));
    const auto full = router.book(request(1), 0ns);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
    EXPECT_EQ(full.error().message, "every worker is full");
    EXPECT_TRUE(full.error().retryable);
    router.on_report(0, load(), BookingId(0));
    router.set_open(0, false);
    EXPECT_EQ(router.book(request(1), 0ns).error().message, "no worker is ready");
}

TEST(Router, WhoMayWaitGoesOnlyWhereItIsTakenUpSoon) {
    Router router = router_of(2);
    RouteRequest r = request(1'000);
    r.most_queue_s = 0.5;
    r.most_waiting_share = 0.125;
    // The limits are 16 running and more that wait: 18 are enough.
    router.on_report(0, load(16, 1), BookingId(0));
    router.on_report(1, load(16, 2), BookingId(0));
    const auto there = router.book(r, 0ns);
    ASSERT_TRUE(there);
    EXPECT_EQ(there->chosen.rank, 0U);
    EXPECT_NE(there->booking.value, 0U);
    EXPECT_EQ(router.book(r, 0ns).error().code, ErrorCode::kOverloaded);
    RouteRequest at_once = request(1'000);
    EXPECT_TRUE(router.book(at_once, 0ns));
    // Much before it: it is to come again.
    router.on_report(1, load(), BookingId(0));
    RouteRequest heavy = request(20'000);
    heavy.pinned = 1;
    ASSERT_TRUE(router.book(heavy, 0ns));
    const auto later = router.book(r, 0ns);
    ASSERT_TRUE(later);
    EXPECT_EQ(later->booking.value, 0U);
    EXPECT_GT(later->chosen.queue_s, 0.5);
}

TEST(Router, WhereMemoryIsShortNothingMoreIsSent) {
    Router router = router_of(1);
    RouteRequest r = request(1'000);
    r.most_queue_s = 0.5;
    auto short_of_it = load(4, 6);
    short_of_it.kv_total_tokens = 30'000;
    short_of_it.kv_used_tokens = 29'500;
    router.on_report(0, short_of_it, BookingId(0));
    EXPECT_EQ(router.book(r, 0ns).error().code, ErrorCode::kOverloaded);
    r.prompt_tokens = 400;
    EXPECT_TRUE(router.book(r, 0ns));
    r.prompt_tokens = 1'000;
    short_of_it.waiting = 1;
    router.on_report(0, short_of_it, BookingId(0));
    EXPECT_TRUE(router.book(r, 0ns));
}

TEST(Router, DeadlinesRefuseWhatComesTooLate) {
    Router router = router_of(1);
    RouteRequest r = request(10'000);
    r.deadline = 100ms;
    EXPECT_EQ(router.book(r, 0ns).error().code, ErrorCode::kDeadlineExceeded);
    r.deadline = 2s;
    EXPECT_TRUE(router.book(r, 0ns));
    EXPECT_EQ(router.bookings(), 1U);
}

TEST(Router, TaintsAndLabelsFilter) {
    Router router(with(Policy::kExpectedTtft), 1);
    RankDescription old = rank("old");
    old.taints = {"gpu=old"};
    RankDescription zone = rank("zone");
    zone.labels = {"zone=a"};
    router.add_rank(old);
    router.add_rank(zone);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(router.book(request(1000), 0ns)->chosen.rank, 1U);
    RouteRequest r = request(1000);
    const std::vector<Label> tolerated{"gpu=old"};
    r.tolerated = tolerated;
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 0U);
    const std::vector<Label> required{"zone=b"};
    r.required = required;
    EXPECT_THAT(router.book(r, 0ns).error().message, HasSubstr("labels"));
}

TEST(Router, PreferencesCostSecondsAndNoMore) {
    Router router(with(Policy::kExpectedTtft), 1);
    RankDescription plain = rank("plain");
    plain.avoid = {"spot"};
    RankDescription fast = rank("fast");
    fast.labels = {"gpu=h100"};
    router.add_rank(plain);
    router.add_rank(fast);
    const auto shares_of_first = [&](std::span<const Label> preferred,
                                     std::span<const Label> tolerated) {
        RouteRequest r = request(1000);
        r.preferred = preferred;
        r.tolerated = tolerated;
        int first = 0;
        for (int i = 0; i < 20; ++i) {
            const auto decision = router.book(r, 0ns);
            first += decision->chosen.rank == 0 ? 1 : 0;
            router.on_end(decision->booking, 0ns);
        }
        return first;
    };
    EXPECT_EQ(shares_of_first({}, {}), 0);  // it is avoided
    const std::vector<Label> spot{"spot"};
    EXPECT_GT(shares_of_first({}, spot), 0);
    const std::vector<Label> h100{"gpu=h100"};
    EXPECT_EQ(shares_of_first(h100, spot), 0);
    // Not at any price: 60,000 cached tokens are worth more than half a second.
    RouteRequest r = request(64'000);
    const Overlap overlap{0, 3900, 3900};
    r.overlaps = {&overlap, 1};
    r.preferred = h100;
    const auto decision = router.book(r, 0ns);
    EXPECT_EQ(decision->chosen.rank, 0U);
    EXPECT_DOUBLE_EQ(decision->chosen.preference_s, 1.0);  // lacks one, bears one
}

TEST(Router, DistrustedRanksHoldNothing) {
    Router router = router_of(2);
    router.set_distrusted(0, true);
    RouteRequest r = request(8192);
    const Overlap overlap{0, 500, 500};
    r.overlaps = {&overlap, 1};
    EXPECT_EQ(router.book(r, 0ns)->chosen.cached_tokens, 0U);
}

TEST(Router, LoadedAdaptersArePreferred) {
    Router router(with(Policy::kExpectedTtft), 1);
    for (int i = 0; i < 4; ++i) {
        RankDescription d = rank("w" + std::to_string(i));
        d.adapter_load_s = 1.0;
        if (i == 2) d.adapters = {9};
        router.add_rank(d);
    }
    RouteRequest r = request(1000);
    r.adapter = 9;
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 2U);
    r.adapter = 5;
    const auto first = router.book(r, 10s);
    EXPECT_NEAR(first->chosen.adapter_s, 1, 1e-9);
    // From now on it is there.
    const auto second = router.book(r, 20s);
    EXPECT_EQ(second->chosen.rank, first->chosen.rank);
    EXPECT_EQ(second->chosen.adapter_s, 0);
}

TEST(Router, SessionsStaySoftlyAndHard) {
    Router router = router_of(4);
    RouteRequest r = request(1000);
    r.session = 77;
    const RankIndex home = router.book(r, 0ns)->chosen.rank;
    RouteRequest pinned = request(3000);
    pinned.pinned = home;
    ASSERT_TRUE(router.book(pinned, 0ns));
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, home);  // half a second longer at most
    pinned.prompt_tokens = 20'000;
    ASSERT_TRUE(router.book(pinned, 0ns));
    RouteRequest hard = r;
    hard.session_hard = true;
    const auto kept = router.book(hard, 0ns);
    EXPECT_EQ(kept->chosen.rank, home);
    EXPECT_TRUE(kept->by_session);
    EXPECT_NE(router.book(r, 0ns)->chosen.rank, home);
    // Another life of the place is another rank.
    Router one = router_of(1);
    ASSERT_TRUE(one.book(hard, 0ns));
    one.remove_rank(0, 1s);
    EXPECT_EQ(one.bookings(), 0U);
    one.add_rank(rank("other"));
    EXPECT_FALSE(one.book(hard, 0ns)->by_session);
}

TEST(Router, PairsAreChosenTogetherWithinAZone) {
    Router router(with(Policy::kExpectedTtft), 1);
    for (const char* zone : {"a", "b"}) {
        for (const Role role : {Role::kPrefill, Role::kDecode}) {
            RankDescription d = rank(std::string(zone) + std::string(to_string(role)), role);
            d.zone = zone;
            d.handoff_latency_s = 0.005;
            d.handoff_s_per_token = 1e-6;
            const RankIndex r = router.add_rank(d);
            protocol::LoadReport l = load();
            l.kv_total_tokens = 30'000;
            router.on_report(r, l, BookingId(0));
        }
    }
    RouteRequest r = request(10'000);
    r.role = Role::kPrefill;
    r.pair = true;
    r.expected_output_tokens = 1000;
    std::vector<Decision> taken;
    for (int i = 0; i < 4; ++i) {
        auto d = router.book(r, 0ns);
        ASSERT_TRUE(d);
        EXPECT_EQ(d->chosen.decode_rank, d->chosen.rank + 1);
        EXPECT_GT(d->chosen.handoff_s, 0.015);
        taken.push_back(*d);
    }
    // 22,000 of 30,000 tokens are spoken for on both decode ranks until these end.
    const auto none = router.book(r, 0ns);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().message, "no decode worker will have room for the request");
    for (const Decision& d : taken) router.on_first_token(d.booking, 0, 3s);
    EXPECT_FALSE(router.book(r, 3s));
    router.on_end(taken[0].booking, 9s);
    const auto again = router.book(r, 9s);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->chosen.decode_rank, taken[0].chosen.decode_rank);
    for (const Decision& d : taken) router.on_end(d.booking, 10s);
    router.on_end(again->booking, 10s);
    for (RankIndex i = 0; i < 4; ++i) {
        EXPECT_EQ(router.ranks().columns().requests[i], 0U);
        EXPECT_EQ(router.ranks().columns().kv_tokens[i], 0);
        EXPECT_EQ(router.ranks().columns().decoding[i], 0);
    }
}

TEST(Router, APromptGoesWhereItsOutputCanBeDecoded) {
    Router router(with(Policy::kExpectedTtft), 1);
    for (const char* zone : {"a", "b"}) {
        for (const Role role : {Role::kPrefill, Role::kDecode}) {
            RankDescription d = rank(std::string(zone) + std::string(to_string(role)), role);
            d.zone = zone;
            d.handoff_s_per_token = 1e-4;  // as long as computing it
            router.add_rank(d);
        }
    }
    // Zone a has the shorter queue, but nobody to decode there.
    RouteRequest other = request(3000);
    other.role = Role::kPrefill;
    other.pinned = 2;
    ASSERT_TRUE(router.book(other, 0ns));
    router.set_open(1, false);
    RouteRequest r = request(5000);
    r.role = Role::kPrefill;
    r.pair = true;
    const auto d = router.book(r, 0ns);
    ASSERT_TRUE(d);
    EXPECT_EQ(d->chosen.rank, 2U);
    EXPECT_EQ(d->chosen.decode_rank, 3U);
    EXPECT_NEAR(d->chosen.handoff_s, 0.5 + 0.0101, 1e-4);
    const Explanation e = router.explain(r, 0ns);
    ASSERT_EQ(e.ranks.size(), 2U);
    for (const Explanation::Entry& entry : e.ranks) {
        EXPECT_EQ(entry.decode_worker, "bdecode");
        // From the other zone it takes twice as long.
        const bool crosses = entry.worker == "aprefill";
        EXPECT_NEAR(entry.candidate.handoff_s, (crosses ? 1.0 : 0.5) + 0.0101, 1e-3);
    }
    router.set_open(3, false);
    EXPECT_EQ(router.book(r, 0ns).error().message, "no decode worker is ready");
}

TEST(Router, ALostRankTakesOnlyItsOwnPartOfAPair) {
    Router router(with(Policy::kExpectedTtft), 1);
    for (int i = 0; i < 2; ++i) router.add_rank(rank("p" + std::to_string(i), Role::kPrefill));
    for (int i = 0; i < 2; ++i) router.add_rank(rank("d" + std::to_string(i), Role::kDecode));
    RouteRequest r = request(5000);
    r.role = Role::kPrefill;
    r.pair = true;
    const auto blocks = hashes(300, 3);
    r.blocks = blocks;
    const auto a = router.book(r, 0ns);
    const auto b = router.book(r, 0ns);
    const RankIndex prefiller = a->chosen.rank;
    ASSERT_EQ(b->chosen.rank, prefiller);  // siblings
    router.on_first_token(a->booking, 0, 1s);
    router.remove_rank(prefiller, 1s);
    // The first one decodes already; the second has lost its prompt.
    EXPECT_EQ(router.bookings(), 1U);
    const auto& c = router.ranks().columns();
    EXPECT_EQ(c.requests[2] + c.requests[3], 1U);
    EXPECT_EQ(c.decoding[2] + c.decoding[3], 1);
    router.on_end(b->booking, 1s);
    router.on_end(a->booking, 2s);
    EXPECT_EQ(router.bookings(), 0U);
    EXPECT_EQ(c.requests[2] + c.requests[3], 0U);
    EXPECT_EQ(c.decoding[2] + c.decoding[3], 0);
    // A decode rank that goes takes the prompt's place in the queue with it.
    const auto d = router.book(r, 3s);
    ASSERT_TRUE(d);
    EXPECT_GT(router.ranks().queue_s(d->chosen.rank, 1, 3), 0.1);
    router.remove_rank(d->chosen.decode_rank, 3s);
    EXPECT_EQ(router.ranks().queue_s(d->chosen.rank, 1, 3), 0);
    EXPECT_EQ(router.bookings(), 0U);
}

TEST(Router, DecodeRoomIsJudgedForTheTimeOfTheHandoff) {
    Router router(with(Policy::kExpectedTtft), 1);
    RankDescription p = rank("p", Role::kPrefill);
    p.prefill.per_token_s = 1e-3;
    router.add_rank(p);
    router.add_rank(rank("d", Role::kDecode));
    protocol::LoadReport l = load();
    l.kv_total_tokens = 15'000;
    router.on_report(1, l, BookingId(0));
    RouteRequest r = request(10'000);
    r.role = Role::kPrefill;
    r.pair = true;
    r.expected_output_tokens = 100;  // a second
    ASSERT_TRUE(router.book(r, 0ns));
    // Its prompt takes ten seconds behind the first one's ten: by then that one has ended.
    EXPECT_TRUE(router.book(r, 0ns));
    r.prompt_tokens = 12'000;
    r.expected_output_tokens = 4000;
    EXPECT_FALSE(router.book(r, 0ns));
}

TEST(Router, DynamoCostIsTheBlocksOfThePublishedFormula) {
    PolicyOptions o = with(Policy::kDynamo);
    Router router = router_of(3, o);
    const auto a = hashes(10, 1);
    RouteRequest r = request(160);
    r.blocks = a;
    r.pinned = 0;
    ASSERT_TRUE(router.book(r, 0ns));  // rank 0: 160 tokens to prefill, 10 blocks
    r.pinned.reset();
    const std::vector<Overlap> overlaps{{0, 4, 4}, {1, 4, 8}};
    r.overlaps = overlaps;
    Explanation e = router.explain(r, 0ns);
    std::map<RankIndex, double> cost;
    for (const auto& entry : e.ranks) cost[entry.candidate.rank] = entry.candidate.cost;
    // Prefill blocks of all without a first token, this one's less what is cached; distinct blocks.
    EXPECT_NEAR(cost[0], (10 + 6) + (10 + 0), 1e-6);
    EXPECT_NEAR(cost[1], (10 - 4 - 0.75 * 4) + 10, 1e-6);
    EXPECT_NEAR(cost[2], 10 + 10, 1e-6);
    EXPECT_EQ(e.chosen->candidate.rank, 1U);
    o.track_prefill_tokens = false;
    o.overlap_weight = 2;
    ASSERT_TRUE(router.set_options(o));
    e = router.explain(r, 0ns);
    for (const auto& entry : e.ranks) cost[entry.candidate.rank] = entry.candidate.cost;
    EXPECT_NEAR(cost[0], 2 * 6 + 10, 1e-6);
}

TEST(Router, ATemperatureSpreadsDynamosChoices) {
    PolicyOptions o = with(Policy::kDynamo);
    o.temperature = 0.5;
    Router router = router_of(4, o);
    const Overlap overlap{2, 10, 10};
    RouteRequest r = request(160);
    r.overlaps = {&overlap, 1};
    std::map<RankIndex, int> taken;
    for (int i = 0; i < 1000; ++i) {
        const auto d = router.book(r, 0ns);
        ++taken[d->chosen.rank];
        router.on_end(d->booking, 0ns);
    }
    EXPECT_GT(taken[2], 500);  // e² = 7.4 times as likely as each of three others
    EXPECT_GT(taken[0], 40);
}

TEST(Router, RoundRobinGoesAroundPastClosedRanks) {
    Router router = router_of(4, with(Policy::kRoundRobin));
    router.set_open(2, false);
    std::vector<RankIndex> order;
    for (int i = 0; i < 6; ++i) order.push_back(router.book(request(10), 0ns)->chosen.rank);
    EXPECT_EQ(order, (std::vector<RankIndex>{0, 1, 3, 0, 1, 3}));
}

TEST(Router, PowerOfTwoAvoidsTheMostLoaded) {
    Router router = router_of(3, with(Policy::kPowerOfTwo));
    router.on_report(1, load(10), BookingId(0));
    std::map<RankIndex, int> taken;
    for (int i = 0; i < 300; ++i) {
        const auto d = router.book(request(10), 0ns);
        ++taken[d->chosen.rank];
        router.on_end(d->booking, 0ns);
    }
    EXPECT_EQ(taken[1], 0);  // whatever it is drawn with is less loaded
    EXPECT_GT(taken[0], 80);
    EXPECT_GT(taken[2], 80);
}

TEST(Router, ConsistentHashMovesNoMoreThanItMust) {
    Router router = router_of(8, with(Policy::kConsistentHash));
    std::map<std::uint64_t, RankIndex> before;
    const auto place = [&](std::uint64_t session) {
        RouteRequest r = request(10);
        r.session = session;
        const auto d = router.book(r, 0ns);
        router.on_end(d->booking, 0ns);
        return d->chosen.rank;
    };
    std::map<RankIndex, int> shares;
    for (std::uint64_t s = 1; s <= 800; ++s) ++shares[before[s] = place(s)];
    for (RankIndex r = 0; r < 8; ++r) EXPECT_NEAR(shares[r], 100, 40);
    router.set_open(3, false);
    for (const auto& [session, rank] : before) {
        if (rank != 3) EXPECT_EQ(place(session), rank);
        if (rank == 3) EXPECT_NE(place(session), 3U);
    }
    // Without a session the beginning of the prompt decides.
    const auto a = hashes(40, 1);
    auto b = a;
    b[39] = 5;
    RouteRequest r = request(640);
    r.blocks = a;
    const RankIndex home = router.book(r, 0ns)->chosen.rank;
    r.blocks = b;
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, home);
}

TEST(Router, DirectNeedsTheRank) {
    Router router = router_of(3, with(Policy::kDirect));
    EXPECT_EQ(router.book(request(10), 0ns).error().code, ErrorCode::kInvalidArgument);
    RouteRequest r = request(10);
    r.pinned = 2;
    EXPECT_EQ(router.book(r, 0ns)->chosen.rank, 2U);
    r.pinned = 7;
    EXPECT_EQ(router.book(r, 0ns).error().code, ErrorCode::kNotFound);
}

TEST(Router, FallbacksAreTheNextBestInOrder) {
    Router router = router_of(6);
    for (RankIndex r = 0; r < 6; ++r) {
        RouteRequest pinned = request(5000 * r);
        pinned.pinned = r;
        if (r > 0) ASSERT_TRUE(router.book(pinned, 0ns));
    }
    const auto d = router.book(request(1000), 0ns);
    EXPECT_EQ(d->chosen.rank, 0U);
    EXPECT_EQ(d->fallbacks, (std::vector<RankIndex>{1, 2, 3}));
    RouteRequest again = request(1000);
    const std::vector<RankIndex> tried{0, 1};
    again.excluded = tried;
    EXPECT_EQ(router.book(again, 0ns)->chosen.rank, 2U);
}

/// Whatever happens, in whatever order: what is booked and ended leaves nothing behind.
TEST(Router, AccountsAreEmptyWhenAllHasEnded) {
    EXPECT_TRUE(rc::check([] {
        const Policy policy = *rc::gen::elementOf(
            std::vector<Policy>(all_policies().begin(), all_policies().end() - 1));
        Router router = router_of(3, with(policy), *rc::gen::arbitrary<std::uint32_t>());
        std::vector<BookingId> open;
        Nanos now{0};
        const int steps = *rc::gen::inRange(1, 80);
        for (int i = 0; i < steps; ++i) {
            now += std::chrono::milliseconds(*rc::gen::inRange(0, 300));
            const int what = *rc::gen::inRange(0, 5);
            if (what <= 1 || open.empty()) {
                const auto blocks = hashes(*rc::gen::inRange(0, 70), *rc::gen::inRange(0, 3));
                RouteRequest r = request(static_cast<std::uint32_t>(blocks.size() * 16 + 1));
                r.blocks = blocks;
                r.priority = *rc::gen::inRange(-1, 2);
                r.session = static_cast<std::uint64_t>(*rc::gen::inRange(0, 3));
                const auto d = router.book(r, now);
                RC_ASSERT(d.has_value());
                RC_ASSERT(d->chosen.ttft_s() >= 0);
                open.push_back(d->booking);
                continue;
            }
            const auto at =
                static_cast<std::size_t>(*rc::gen::inRange(0, static_cast<int>(open.size())));
            if (what == 2) {
                router.on_first_token(open[at], *rc::gen::inRange(0, 100), now);
            } else if (what == 3) {
                router.on_end(open[at], now);
                open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
            } else {
                router.on_report(*rc::gen::inRange(0, 3), load(*rc::gen::inRange(0, 9)), open[at]);
            }
        }
        for (const BookingId id : open) router.on_end(id, now);
        RC_ASSERT(router.bookings() == 0U);
        for (RankIndex r = 0; r < 3; ++r) {
            router.on_report(r, load(), BookingId(0));
            RC_ASSERT(router.ranks().queue_s(r, 0, 0) == 0);
            RC_ASSERT(router.ranks().columns().requests[r] == 0U);
            RC_ASSERT(router.ranks().columns().decoding[r] == 0);
        }
    }));
}

TEST(Policy, OptionsThatMakeNoSenseAreRefused) {
    PolicyOptions o;
    EXPECT_TRUE(validate(o));
    o.work_weight = -1;
    EXPECT_EQ(validate(o).error().message,
              "work_weight is -1; it must be a number from 0 to 1000000");
    o = {};
    o.temperature = std::numeric_limits<double>::quiet_NaN();
    EXPECT_THAT(validate(o).error().message, HasSubstr("temperature is nan"));
    o = {};
    o.prefix_blocks = 0;
    EXPECT_FALSE(validate(o));
    Router router;
    EXPECT_FALSE(router.set_options(o));
    for (const Policy p : all_policies()) EXPECT_EQ(find_policy(to_string(p)), p);
    EXPECT_EQ(find_policy("best"), std::nullopt);
}

}  // namespace
}  // namespace stator::router
