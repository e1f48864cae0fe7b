#include <gtest/gtest.h>

#include <set>

#include "stator/replicas/replicas_fixture.h"

namespace stator::replicas {
namespace {

using namespace std::chrono_literals;

double queue_s(const Replica& r, router::RankIndex rank, double now_s) {
    return r.router.ranks().queue_s(rank, 1, now_s);
}

TEST(Replicas, APeersBookingIsLoadHereUntilItEnds) {
    Replica a(1);
    Replica b(2);
    const auto blocks = prompt(1, 500);
    const auto decision = a.book(blocks, 0s);
    const router::RankIndex rank = decision.chosen.rank;
    b.hear(a, a.flush());
    EXPECT_EQ(b.router.peers_bookings(), 1U);
    EXPECT_EQ(b.router.bookings(), 0U);
    EXPECT_EQ(b.router.ranks().columns().requests[rank], 1U);
    EXPECT_NEAR(queue_s(b, rank, 0), queue_s(a, rank, 0), 1e-6);
    EXPECT_GT(queue_s(b, rank, 0), 0.5);

    a.router.on_first_token(decision.booking, 0, 900ms);
    b.hear(a, a.flush());
    EXPECT_EQ(queue_s(b, rank, 0.9), 0);
    EXPECT_EQ(b.router.ranks().columns().decoding[rank], 1);
    EXPECT_NEAR(b.router.ranks().columns().scale[rank], a.router.ranks().columns().scale[rank],
                1e-6);

    a.router.on_end(decision.booking, 1s);
    b.hear(a, a.flush());
    EXPECT_EQ(b.router.peers_bookings(), 0U);
    EXPECT_EQ(b.router.ranks().columns().requests[rank], 0U);
    EXPECT_EQ(b.router.ranks().columns().kv_tokens[rank], 0);
}

TEST(Replicas, SiblingsOfAPeersBookingGoWhereItWent) {
    Replica a(1, 16);
    Replica b(2, 16);
    const auto blocks = prompt(7, 512);
    std::set<router::RankIndex> ranks;
    for (int i = 0; i < 64; ++i) {
        Replica& mine = i % 2 == 0 ? a : b;
        Replica& other = i % 2 == 0 ? b : a;
        ranks.insert(mine.book(blocks, i * 1ms).chosen.rank);
        other.hear(mine, mine.flush(), i * 1ms);
    }
    EXPECT_LE(ranks.size(), 3U);
}

TEST(Replicas, LongPromptsAreToldInFewPlaces) {
    Replica a(1);
    Replica b(2);
    const auto blocks = prompt(7, 5000);
    const auto first = a.book(blocks, 0s);
    const auto messages = a.flush();
    const auto& event = std::get<Delta>(messages.front()).events.front();
    EXPECT_LT(event.booking->places.size(), 200U);
    b.hear(a, messages);
    const auto second = b.book(blocks, 1ms, first.chosen.rank);
    EXPECT_EQ(second.chosen.cached_tokens, 5000 * 16U) << "the last block is told, too";
    // Of one that shares a part of it, all but the last of the places further and further apart.
    const auto branch = prompt(7, 4000);
    Replica c(3);
    c.hear(a, messages);
    const auto third = c.book(branch, 1ms, first.chosen.rank);
    EXPECT_LE(third.chosen.cached_tokens, 4000 * 16U);
    EXPECT_GE(third.chosen.cached_tokens, (4000 - 4000 / 32) * 16U);
}

TEST(Replicas, AReportThatCountsThemCountsThemOnce) {
    Replica a(1);
    Replica b(2);
    const auto one = a.book(prompt(1, 10), 0s, 0);
    const auto two = a.book(prompt(2, 10), 0s, 0);
    const auto delta = a.flush();
    protocol::LoadReport load;
    load.running = 2;
    load.kv_used_tokens = 400;
    // The worker knows them before the delta comes: they are somebody's.
    b.router.on_report(0, load, {});
    EXPECT_EQ(b.router.ranks().columns().requests[0], 2U);
    b.hear(a, delta);
    EXPECT_EQ(b.router.ranks().columns().requests[0], 2U);
    // With one more that nobody has told of.
    load.running = 3;
    b.router.on_report(0, load, {});
    EXPECT_EQ(b.router.ranks().columns().requests[0], 3U);
    // Of what ends the report's rest stays.
    a.router.on_end(one.booking, 1s);
    a.router.on_end(two.booking, 1s);
    b.hear(a, a.flush());
    EXPECT_EQ(b.router.ranks().columns().requests[0], 1U);
    // The delta before the report: nothing is foreign.
    const auto three = a.book(prompt(3, 10), 1s, 1);
    b.hear(a, a.flush());
    load.running = 0;
    b.router.on_report(1, load, {});
    EXPECT_EQ(b.router.ranks().columns().requests[1], 1U);
    EXPECT_NE(three.booking.value, 0U);
}

TEST(Replicas, WhatTheEngineSaysIsWaitingIsNotQueuedTwice) {
    Replica a(1);
    Replica b(2);
    (void)a.book(prompt(1, 100), 0s, 0);
    (void)a.book(prompt(2, 100), 0s, 0);
    b.hear(a, a.flush());
    const double before = queue_s(b, 0, 0);
    protocol::LoadReport load;
    load.running = 1;
    load.waiting = 1;
    load.waiting_tokens = 1608;
    b.router.on_report(0, load, {});
    EXPECT_EQ(queue_s(b, 0, 0), before);
}

TEST(Replicas, AGapIsAskedForAndFilled) {
    Replica a(1);
    Replica b(2);
    std::vector<router::Decision> decisions;
    std::vector<std::vector<Message>> sent;
    for (std::uint64_t i = 0; i < 3; ++i) {
        decisions.push_back(a.book(prompt(i, 4), 0s));
        sent.push_back(a.flush());
    }
    b.hear(a, sent[0]);
    b.hear(a, sent[2]);
    EXPECT_EQ(b.router.peers_bookings(), 2U);
    auto asks = b.asks(0s);
    ASSERT_EQ(asks.size(), 1U);
    EXPECT_EQ(asks[0].of, a.id);
    EXPECT_EQ(asks[0].deltas, (std::vector<std::uint64_t>{2}));
    EXPECT_TRUE(b.asks(50ms).empty());  // not at once again
    std::vector<Message> answer;
    a.journal.answer(asks[0], answer);
    b.hear(a, answer);
    EXPECT_EQ(b.router.peers_bookings(), 3U);
    b.hear(a, answer);  // duplicates, and late ones
    b.hear(a, sent[1]);
    EXPECT_EQ(b.router.peers_bookings(), 3U);
    EXPECT_TRUE(b.asks(1s).empty());
    EXPECT_EQ(b.peers.counters().missed, 1U);
    EXPECT_EQ(b.peers.counters().duplicates, 2U);
}

TEST(Replicas, WhatHasEndedMeanwhileIsNotBroughtBack) {
    Replica a(1);
    Replica b(2);
    b.hear(a, a.digest());
    const auto decision = a.book(prompt(1, 4), 0s);
    (void)a.flush();  // lost
    a.router.on_end(decision.booking, 1s);
    b.hear(a, a.flush());
    const auto asks = b.asks(0s);
    ASSERT_EQ(asks.size(), 1U);
    std::vector<Message> answer;
    a.journal.answer(asks[0], answer);
    b.hear(a, answer);
    EXPECT_EQ(b.router.peers_bookings(), 0U);
    b.hear(a, a.digest());
    EXPECT_TRUE(b.peers.peers().front().in_step);
}

TEST(Replicas, ALostLastDeltaShowsInTheDigest) {
    Replica a(1);
    Replica b(2);
    b.hear(a, a.digest());
    (void)a.book(prompt(1, 4), 0s);
    (void)a.flush();  // lost
    b.hear(a, a.digest());
    ASSERT_EQ(b.asks(0s).size(), 1U);
    EXPECT_EQ(b.peers.peers().front().missing, 1U);
}

TEST(Replicas, WhoComesLaterAsksForAllInParts) {
    Replica a(1);
    std::vector<router::Decision> decisions;
    for (std::uint64_t i = 0; i < 300; ++i) decisions.push_back(a.book(prompt(i, 2), 0s));
    a.router.on_first_token(decisions[7].booking, 0, 1s);
    (void)a.flush();
    Replica b(2);
    const auto digest = a.digest();
    EXPECT_EQ(std::get<Digest>(digest.back()).ranges.size(), 5U);
    b.hear(a, digest);
    const auto asks = b.asks(0s);
    ASSERT_EQ(asks.size(), 1U);
    EXPECT_EQ(asks[0].ranges.size(), 5U);
    std::vector<Message> answer;
    a.journal.answer(asks[0], answer);
    EXPECT_EQ(answer.size(), 5U);
    answer.pop_back();  // lost
    b.hear(a, answer);
    EXPECT_EQ(b.router.peers_bookings(), 256U);
    EXPECT_EQ(b.asks(1s).front().ranges.size(), 1U);
    b.hear(a, a.digest());
    std::vector<Message> rest;
    a.journal.answer(b.asks(2s).front(), rest);
    EXPECT_EQ(rest.size(), 1U);
    b.hear(a, rest);
    b.hear(a, a.digest());
    EXPECT_EQ(b.router.peers_bookings(), 300U);
    EXPECT_TRUE(b.peers.peers().front().in_step);
    EXPECT_TRUE(b.peers.known(a.id)[7].prefilled);
}

TEST(Replicas, OnePeersSilenceDropsItsBookings) {
    Replica a(1);
    Replica b(2);
    (void)a.book(prompt(1, 4), 0s);
    b.hear(a, a.flush(), 0s);
    b.peers.heard(a.id, 2s);
    b.peers.expire(5s);
    EXPECT_EQ(b.router.peers_bookings(), 1U);
    b.peers.expire(5s + 1ms);
    EXPECT_EQ(b.router.peers_bookings(), 0U);
    EXPECT_EQ(b.peers.counters().peers_gone, 1U);
    EXPECT_EQ(b.peers.counters().bookings_lost, 1U);
    // It was only slow: all is asked for again.
    b.hear(a, a.digest(), 6s);
    EXPECT_EQ(b.asks(6s).size(), 1U);
}

TEST(Replicas, ABookingThatNobodyEndsIsToldNoMore) {
    Replica a(1);
    Replica b(2);
    (void)a.book(prompt(1, 4), 0s);
    b.hear(a, a.flush());
    (void)a.book(prompt(2, 4), 20min);
    b.hear(a, a.digest(31min));
    EXPECT_EQ(a.journal.live(), 1U);
    EXPECT_EQ(a.journal.expired(), 1U);
    EXPECT_EQ(b.router.peers_bookings(), 1U);
    EXPECT_TRUE(b.peers.peers().front().in_step);
}

TEST(Replicas, RanksMayBeKnownLaterAndGoEarlier) {
    Replica a(1);
    Replica b(2, 0);
    const auto decision = a.book(prompt(1, 40), 0s, 2);
    b.hear(a, a.flush());
    EXPECT_EQ(b.router.peers_bookings(), 0U);
    EXPECT_EQ(b.peers.peers().front().placeless, 1U);
    (void)b.add_rank("w7");
    EXPECT_EQ(b.router.peers_bookings(), 0U);
    const router::RankIndex rank = b.add_rank("w2");
    EXPECT_EQ(b.router.peers_bookings(), 1U);
    EXPECT_EQ(b.router.ranks().columns().requests[rank], 1U);
    b.router.remove_rank(rank, 1s);
    EXPECT_EQ(b.router.peers_bookings(), 0U);
    a.router.on_end(decision.booking, 2s);
    b.hear(a, a.flush());
    EXPECT_TRUE(b.peers.known(a.id).empty());
    // Whose rank goes here has none there either.
    (void)a.book(prompt(1, 40), 3s, 2);
    a.router.remove_rank(2, 4s);
    EXPECT_EQ(a.journal.live(), 0U);
}

TEST(Replicas, PairsAreTwoRanksLoad) {
    Replica a(1, 0);
    Replica b(2, 0);
    for (Replica* r : {&a, &b}) {
        (void)r->add_rank("p", protocol::Role::kPrefill);
        (void)r->add_rank("d", protocol::Role::kDecode);
    }
    router::RouteRequest request;
    request.prompt_tokens = 1000;
    request.role = protocol::Role::kPrefill;
    request.pair = true;
    const auto decision = a.router.book(request, 0s);
    ASSERT_TRUE(decision);
    b.hear(a, a.flush());
    const auto& own = b.router.ranks().columns().own;
    EXPECT_EQ(own[0], 1U);
    EXPECT_EQ(own[1], 1U);
    a.router.on_first_token(decision->booking, 0, 1s);
    b.hear(a, a.flush());
    EXPECT_EQ(own[0], 0U);
    EXPECT_EQ(own[1], 1U);
    EXPECT_EQ(b.router.ranks().columns().decoding[1], 1);
    // Who comes now knows the prefill rank no more: the decode rank has its load.
    Replica c(3, 0);
    (void)c.add_rank("d", protocol::Role::kDecode);
    c.hear(a, a.digest());
    std::vector<Message> answer;
    a.journal.answer(c.asks(0s).front(), answer);
    c.hear(a, answer);
    EXPECT_EQ(c.router.ranks().columns().own[0], 1U);
    a.router.on_end(decision->booking, 2s);
    b.hear(a, a.flush());
    EXPECT_EQ(own[1], 0U);
    EXPECT_EQ(b.router.peers_bookings(), 0U);
}

TEST(Replicas, SessionsAreKeptAcrossReplicas) {
    Replica a(1, 8);
    Replica b(2, 8);
    router::RouteRequest request;
    request.prompt_tokens = 10;
    request.session = 77;
    request.session_hard = true;
    const auto first = a.router.book(request, 0s);
    ASSERT_TRUE(first);
    b.hear(a, a.flush());
    const auto second = b.router.book(request, 1ms);
    ASSERT_TRUE(second);
    EXPECT_TRUE(second->by_session);
    EXPECT_EQ(second->chosen.rank, first->chosen.rank);
}

TEST(Replicas, TablesAreBounded) {
    PeerTableOptions options;
    options.max_peers = 1;
    options.max_bookings = 2;
    Replica b(2, 4, options);
    Replica a(1);
    Replica c(3);
    for (std::uint64_t i = 0; i < 5; ++i) (void)a.book(prompt(i, 4), 0s);
    b.hear(a, a.flush());
    b.hear(c, c.digest());
    EXPECT_EQ(b.router.peers_bookings(), 2U);
    EXPECT_EQ(b.peers.size(), 1U);
    EXPECT_EQ(b.peers.counters().refused, 4U);
    b.hear(a, a.digest());
    EXPECT_TRUE(b.asks(0s).empty());  // in vain
}

TEST(Replicas, ManyMissingAreOneQuestion) {
    Replica a(1);
    Replica b(2);
    b.hear(a, a.digest());
    for (std::uint64_t i = 0; i < 300; ++i) {
        (void)a.book(prompt(i, 1), 0s);
        (void)a.flush();
    }
    (void)a.book(prompt(1000, 1), 0s);
    b.hear(a, a.flush());
    const auto asks = b.asks(0s);
    ASSERT_EQ(asks.size(), 1U);
    EXPECT_TRUE(asks[0].deltas.empty());
    EXPECT_EQ(asks[0].ranges, (std::vector<NumberRange>{NumberRange{}}));
}

}  // namespace
}  // namespace stator::replicas
