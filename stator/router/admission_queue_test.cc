#include "stator/router/admission_queue.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <set>

namespace stator::router {
namespace {

using namespace std::chrono_literals;

Waiting waiting(std::uint64_t id, Nanos arrival = 0ns, std::uint64_t tenant = 0,
                double work_s = 0.1) {
    Waiting w;
    w.id = id;
    w.arrival = arrival;
    w.tenant = tenant;
    w.work_s = work_s;
    return w;
}

std::vector<std::uint64_t> pop_all(AdmissionQueue& q, Nanos now = 0ns) {
    std::vector<std::uint64_t> ids;
    while (const auto w = q.pop(now)) ids.push_back(w->id);
    return ids;
}

using Ids = std::vector<std::uint64_t>;

TEST(AdmissionQueue, NewOptionsAndWeightsLeaveThoseWhoWait) {
    AdmissionQueue q({.most_requests = 10, .most_per_tenant = 10, .quantum_s = 0.1});
    q.set_weight(2, 3);
    for (std::uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(q.push(waiting(i, 0ns, 1), 0ns));
    for (std::uint64_t i = 5; i <= 8; ++i) ASSERT_TRUE(q.push(waiting(i, 0ns, 2), 0ns));
    q.set_options({.most_requests = 5, .most_per_tenant = 2, .quantum_s = 0.1});
    EXPECT_EQ(q.size(), 8U);
    EXPECT_FALSE(q.push(waiting(9, 0ns, 3), 0ns)) << "full";
    q.clear_weights();
    EXPECT_EQ(pop_all(q), (Ids{1, 5, 2, 6, 3, 7, 4, 8})) << "in turns, of equal weights";
    ASSERT_TRUE(q.push(waiting(1, 0ns, 1), 0ns));
    ASSERT_TRUE(q.push(waiting(2, 0ns, 1), 0ns));
    EXPECT_FALSE(q.push(waiting(3, 0ns, 1), 0ns)) << "the tenant's part";
    q.set_options({.most_requests = 5, .most_per_tenant = 5});
    EXPECT_TRUE(q.push(waiting(3, 0ns, 1), 0ns));
}

TEST(AdmissionQueue, ATurnOfAnOldWeightEndsWithIt) {
    AdmissionQueue q({.quantum_s = 0.1});
    q.set_weight(2, 100);
    for (std::uint64_t i = 1; i <= 5; ++i) ASSERT_TRUE(q.push(waiting(i, 0ns, 1), 0ns));
    for (std::uint64_t i = 6; i <= 10; ++i) ASSERT_TRUE(q.push(waiting(i, 0ns, 2), 0ns));
    EXPECT_EQ(q.pop(0ns)->id, 1U);
    EXPECT_EQ(q.pop(0ns)->id, 6U);
    q.clear_weights();
    EXPECT_EQ(pop_all(q), (Ids{7, 2, 8, 3, 9, 4, 10, 5})) << "not 7, 8, 9, 10";
}

TEST(AdmissionQueue, ArrivalThenClassThenDeadline) {
    AdmissionQueue q;
    ASSERT_TRUE(q.push(waiting(1, 0ns), 0ns));
    ASSERT_TRUE(q.push(waiting(2, 1ms), 1ms));
    Waiting urgent = waiting(3, 2ms);
    urgent.urgency = RequestClass::kInteractive;
    ASSERT_TRUE(q.push(urgent, 2ms));
    Waiting batch = waiting(4, 0ns);
    batch.urgency = RequestClass::kBatch;
    ASSERT_TRUE(q.push(batch, 2ms));
    Waiting hurried = waiting(5, 3ms);
    hurried.deadline = 50ms;  // must begin 50 ms ago
    ASSERT_TRUE(q.push(hurried, 3ms));
    EXPECT_EQ(pop_all(q, 4ms), (Ids{3, 5, 1, 2, 4}));
    EXPECT_TRUE(q.empty());
    EXPECT_EQ(q.work_s(), 0);
}

TEST(AdmissionQueue, ShortOnesPassLongOnesButNotForEver) {
    AdmissionOptions o;
    o.stretch = 5;
    AdmissionQueue q(o);
    ASSERT_TRUE(q.push(waiting(1, 0s, 0, 2.0), 0s));    // as if it came at 10 s
    ASSERT_TRUE(q.push(waiting(2, 5s, 0, 0.2), 5s));    // 6 s
    ASSERT_TRUE(q.push(waiting(3, 10s, 0, 0.2), 10s));  // 11 s
    EXPECT_EQ(pop_all(q), (Ids{2, 1, 3}));
}

TEST(AdmissionQueue, TenantsShareByWork) {
    AdmissionOptions o;
    o.most_requests = 10'000;
    o.most_per_tenant = 10'000;
    AdmissionQueue q(o);
    q.set_weight(3, 2.0);
    // Tenant 1 floods with short ones, 2 has long ones, 3 pays for twice the share.
    std::uint64_t id = 0;
    for (int i = 0; i < 4000; ++i) ASSERT_TRUE(q.push(waiting(++id, 0s, 1, 0.1), 0s));
    for (int i = 0; i < 400; ++i) ASSERT_TRUE(q.push(waiting(++id, 0s, 2, 1.0), 0s));
    for (int i = 0; i < 800; ++i) ASSERT_TRUE(q.push(waiting(++id, 0s, 3, 0.5), 0s));
    std::map<std::uint64_t, double> got;
    double all = 0;
    while (all < 400) {
        const auto w = q.pop(0s);
        got[w->tenant] += w->work_s;
        all += w->work_s;
    }
    EXPECT_NEAR(got[1] / all, 0.25, 0.02);
    EXPECT_NEAR(got[2] / all, 0.25, 0.02);
    EXPECT_NEAR(got[3] / all, 0.50, 0.02);
}

TEST(AdmissionQueue, IsBoundedAndLessUrgentOnesMakeRoom) {
    AdmissionOptions o;
    o.most_requests = 3;
    o.most_per_tenant = 2;
    AdmissionQueue q(o);
    Waiting batch = waiting(1, 0s, 7);
    batch.urgency = RequestClass::kBatch;
    ASSERT_TRUE(q.push(batch, 0s));
    batch.id = 2;
    batch.arrival = 1s;
    ASSERT_TRUE(q.push(batch, 1s));
    batch.id = 3;
    const auto much = q.push(batch, 1s);
    ASSERT_FALSE(much);
    EXPECT_EQ(much.error().code, ErrorCode::kOverloaded);
    EXPECT_GE(much.error().retry_after_ms, 50U);
    ASSERT_TRUE(q.push(waiting(4), 1s));
    const auto displaced = q.push(waiting(5), 1s);
    ASSERT_TRUE(displaced);
    ASSERT_TRUE(*displaced);
    EXPECT_EQ((*displaced)->id, 2U);
    batch.tenant = 8;
    batch.id = 6;
    EXPECT_EQ(q.push(batch, 1s).error().code, ErrorCode::kOverloaded);
    EXPECT_EQ(q.size(), 3U);
}

TEST(AdmissionQueue, ExpiredOnesComeOut) {
    AdmissionQueue q;
    Waiting w = waiting(1);
    w.deadline = 2s;
    ASSERT_TRUE(q.push(w, 0s));
    ASSERT_TRUE(q.push(waiting(2), 0s));
    EXPECT_TRUE(q.expire(1s).empty());
    const auto gone = q.expire(2s);
    ASSERT_EQ(gone.size(), 1U);
    EXPECT_EQ(gone[0].id, 1U);
    EXPECT_EQ(q.push(w, 3s).error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_TRUE(q.remove(2));
    EXPECT_FALSE(q.remove(2));
}

TEST(AdmissionQueue, WaitingLongRaisesTheClass) {
    AdmissionQueue q;
    Waiting batch = waiting(1, 0s);
    batch.urgency = RequestClass::kBatch;
    ASSERT_TRUE(q.push(batch, 0s));
    ASSERT_TRUE(q.push(waiting(2, 31s), 31s));
    // Among standard ones it is the older one now.
    EXPECT_EQ(pop_all(q, 31s), (Ids{1, 2}));
}

TEST(AdmissionQueue, PutBackKeepsPlaceAndShare) {
    AdmissionQueue q;
    for (std::uint64_t i = 1; i <= 6; ++i) {
        ASSERT_TRUE(q.push(waiting(i, std::chrono::milliseconds(i), i % 2, 0.5), 0s));
    }
    std::vector<std::uint64_t> order;
    while (const auto w = q.pop(0s)) {
        q.put_back(*w);
        const auto again = q.pop(0s);
        EXPECT_EQ(again->id, w->id);
        order.push_back(w->id);
    }
    EXPECT_EQ(order.size(), 6U);
}

/// Offers, and takes none of `held`; in the order asked.
Ids asked(AdmissionQueue& q, std::size_t most, const std::set<std::uint64_t>& held,
          std::size_t takes = 1'000) {
    Ids out;
    (void)q.offer(0s, most, [&](const Waiting& w) {
        out.push_back(w.id);
        if (held.contains(w.id) || takes == 0) return Offered::kNotNow;
        --takes;
        return Offered::kTaken;
    });
    return out;
}

TEST(AdmissionQueue, WhoIsNotTakenKeepsPlaceAndShare) {
    AdmissionOptions o;
    o.quantum_s = 0.375;
    AdmissionQueue q(o);
    AdmissionQueue same(o);
    // Tenant 1 has six, tenant 2 three; each turn is worth three of them.
    for (std::uint64_t i = 1; i <= 9; ++i) {
        const Waiting w = waiting(i, std::chrono::milliseconds(i), i <= 6 ? 1 : 2, 0.125);
        ASSERT_TRUE(q.push(w, 0s));
        ASSERT_TRUE(same.push(w, 0s));
    }
    const Ids order = pop_all(same);
    EXPECT_EQ(order, (Ids{1, 2, 3, 7, 8, 9, 4, 5, 6}));
    // Offers in vain change nothing, one taken at a time goes on where the last one ended.
    Ids taken;
    while (!q.empty()) {
        EXPECT_EQ(asked(q, 100, {1, 2, 3, 4, 5, 6, 7, 8, 9}).size(), q.size());
        const Ids now = asked(q, 100, {}, 1);
        taken.push_back(now.front());
    }
    EXPECT_EQ(taken, order);
}

TEST(AdmissionQueue, TakenOutOfTurnIsStillCharged) {
    AdmissionOptions o;
    o.quantum_s = 0.1;
    AdmissionQueue q(o);
    // The first of tenant 1 can't go; tenant 2's go meanwhile, and owe nothing nor gain.
    for (std::uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(q.push(waiting(i, 0s, 1), 0s));
    for (std::uint64_t i = 5; i <= 8; ++i) ASSERT_TRUE(q.push(waiting(i, 0s, 2), 0s));
    EXPECT_EQ(asked(q, 4, {1, 2, 3, 4}, 2), (Ids{1, 5, 2, 6}));
    EXPECT_EQ(q.size(), 6U);
    // Tenant 1 has two turns to make up for.
    const Ids next = pop_all(q);
    EXPECT_EQ(next, (Ids{1, 2, 7, 3, 8, 4}));
}

TEST(AdmissionQueue, AnOfferLooksFurtherBackWhereTheFirstOnesAreStuck) {
    AdmissionQueue q;
    std::set<std::uint64_t> stuck;
    for (std::uint64_t i = 1; i <= 100; ++i) {
        ASSERT_TRUE(q.push(waiting(i, std::chrono::milliseconds(i)), 0s));
        if (i < 100) stuck.insert(i);
    }
    bool gone = false;
    for (int pass = 0; pass < 30 && !gone; ++pass) {
        const Ids ids = asked(q, 8, stuck);
        EXPECT_LE(ids.size(), 8U);
        EXPECT_EQ(ids.front(), 1U);
        gone = ids.back() == 100U;
    }
    EXPECT_TRUE(gone);
    EXPECT_EQ(q.size(), 99U);
    std::size_t asks = 0;
    EXPECT_EQ(q.offer(0s, 50, [&](const Waiting&) { return ++asks, Offered::kNobody; }), 0U);
    EXPECT_EQ(asks, 1U);
    EXPECT_EQ(q.size(), 99U);
}

TEST(AdmissionQueue, OfMillionsOfTenantsNothingIsKept) {
    AdmissionOptions o;
    o.most_requests = 64;
    AdmissionQueue q(o);
    std::size_t refused = 0;
    for (std::uint64_t i = 1; i <= 1'000'000; ++i) {
        if (!q.push(waiting(i, Nanos(i), i), Nanos(i))) ++refused;
        if (i % 2 == 0) (void)q.pop(Nanos(i));
        ASSERT_LE(q.tenants(), 64U);
    }
    EXPECT_GT(refused, 400'000U);
    EXPECT_EQ(pop_all(q).size(), 63U);
    EXPECT_EQ(q.tenants(), 0U);
}

/// Whatever is pushed comes out once: popped, displaced, expired or removed.
TEST(AdmissionQueue, LosesAndDoublesNothing) {
    EXPECT_TRUE(rc::check([] {
        AdmissionOptions o;
        o.most_requests = 12;
        o.most_per_tenant = 8;
        o.stretch = *rc::gen::element(0.0, 5.0);
        o.promote_after_s = 2;
        AdmissionQueue q(o);
        std::set<std::uint64_t> inside;
        const auto leaves = [&](const Waiting& w) { RC_ASSERT(inside.erase(w.id) == 1U); };
        Nanos now{0};
        const int steps = *rc::gen::inRange(1, 120);
        for (int i = 0; i < steps; ++i) {
            now += std::chrono::milliseconds(*rc::gen::inRange(0, 900));
            switch (*rc::gen::inRange(0, 7)) {
                case 0:
                case 1:
                case 2: {
                    Waiting w = waiting(static_cast<std::uint64_t>(i), now,
                                        static_cast<std::uint64_t>(*rc::gen::inRange(0, 3)),
                                        *rc::gen::inRange(0, 30) * 0.1);
                    w.urgency = static_cast<RequestClass>(*rc::gen::inRange(0, 3));
                    if (*rc::gen::inRange(0, 3) == 0) w.deadline = now + 2s;
                    const auto taken = q.push(w, now);
                    if (!taken) break;
                    RC_ASSERT(inside.insert(w.id).second);
                    if (*taken) leaves(**taken);
                    break;
                }
                case 3:
                    for (const Waiting& w : q.expire(now)) leaves(w);
                    break;
                case 4:
                    if (const auto w = q.pop(now)) {
                        if (*rc::gen::inRange(0, 2) == 0) {
                            q.put_back(*w);
                        } else {
                            leaves(*w);
                        }
                    }
                    break;
                case 5:
                    (void)q.offer(now, 6, [&](const Waiting& w) {
                        RC_ASSERT(inside.contains(w.id));
                        if (*rc::gen::inRange(0, 2) == 0) return Offered::kNotNow;
                        leaves(w);
                        return Offered::kTaken;
                    });
                    break;
                default:
                    if (!inside.empty()) {
                        RC_ASSERT(q.remove(*inside.begin()));
                        inside.erase(inside.begin());
                    }
            }
            RC_ASSERT(q.size() == inside.size());
        }
        while (const auto w = q.pop(now)) leaves(*w);
        RC_ASSERT(inside.empty());
        RC_ASSERT(q.expire(now + 100s).empty());
    }));
}

}  // namespace
}  // namespace stator::router
