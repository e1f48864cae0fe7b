#include "stator/kube/election.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <deque>
#include <random>

namespace stator::kube {
namespace {

using namespace std::chrono_literals;

/// One Lease as the API server keeps it.
struct Server {
    std::optional<Lease> lease;
    int version = 0;

    std::pair<int, std::string> answer(const Election::Call& call) {
        if (call.method == "GET") {
            if (!lease) return {404, R"({"kind":"Status","code":404})"};
            return {200, format_lease(*lease, "n", "l")};
        }
        const bool create = call.method == "POST";
        if (create && lease) return {409, ""};
        if (!create && !lease) return {404, ""};
        // A body without a version does not parse: it is read as one with a version of its own.
        std::string body = call.body;
        if (create) body.insert(body.find("\"name\""), R"("resourceVersion":"0",)");
        auto next = parse_lease(body);
        EXPECT_TRUE(next) << body;
        if (!create && next->version != lease->version) return {409, ""};
        next->version = std::to_string(++version);
        lease = *next;
        return {create ? 201 : 200, format_lease(*lease, "n", "l")};
    }
};

ElectionOptions options(const std::string& self, std::uint64_t seed = 1) {
    ElectionOptions o;
    o.in_namespace = "n";
    o.lease = "l";
    o.self = self;
    o.random_seed = seed;
    return o;
}

/// Lets it do what it wants until nothing is due.
void turn(Election& e, Server& server, TimePoint now) {
    while (const auto call = e.take_call(now, 1'700'000'000)) {
        const auto [status, body] = server.answer(*call);
        e.on_answer(status, body, now);
    }
}

TEST(Lease, IsReadAsItIsWritten) {
    const Lease lease{"7", "me \"x\"", 15, micro_time(0), micro_time(1'767'323'045), 3};
    EXPECT_EQ(parse_lease(format_lease(lease, "n", "l")).value(), lease);
    EXPECT_EQ(micro_time(1'767'323'045), "2026-01-02T03:04:05.000000Z");
    for (const std::string bad : {"", "{", "[]", "{}", R"({"metadata":{"resourceVersion":7}})"}) {
        EXPECT_FALSE(parse_lease(bad)) << bad;
    }
    EXPECT_EQ(parse_lease(R"({"metadata":{"resourceVersion":"7"},"spec":null})")->holder, "");
}

TEST(Election, OneLeadsAndTheOtherWaitsUntilItsLeaseHasRunOut) {
    Server server;
    Election a(options("a"));
    Election b(options("b"));
    TimePoint now{1};
    turn(a, server, now);
    EXPECT_TRUE(a.leading(now));
    turn(b, server, now);
    EXPECT_FALSE(b.leading(now));
    EXPECT_EQ(b.holder(), "a");
    for (int s = 0; s < 60; ++s) {
        now = now + 1s;
        turn(a, server, now);
        turn(b, server, now);
        EXPECT_TRUE(a.leading(now));
        EXPECT_FALSE(b.leading(now));
    }
    EXPECT_EQ(server.lease->transitions, 0);
    // a is cut off: it stops before b begins.
    const TimePoint cut = now;
    while (!b.leading(now) && now - cut < 60s) {
        now = now + 100ms;
        turn(b, server, now);
        EXPECT_FALSE(a.leading(now) && b.leading(now));
    }
    EXPECT_TRUE(b.leading(now));
    EXPECT_GE(now - cut, 13s);
    EXPECT_EQ(server.lease->transitions, 1);
    EXPECT_FALSE(a.leading(now));
    turn(a, server, now);
    EXPECT_FALSE(a.leading(now));
}

TEST(Election, WhoLeavesLetsGo) {
    Server server;
    Election a(options("a"));
    Election b(options("b"));
    TimePoint now{1};
    turn(a, server, now);
    turn(b, server, now);
    const auto call = a.release(now, 1'700'000'000);
    ASSERT_TRUE(call);
    EXPECT_EQ(server.answer(*call).first, 200);
    EXPECT_FALSE(a.leading(now));
    EXPECT_FALSE(b.release(now, 0));
    now = now + 5s;
    turn(b, server, now);
    EXPECT_TRUE(b.leading(now));
}

TEST(Election, GarbageAndRefusalsAreNoLease) {
    TimePoint now{1};
    for (const int status : {200, 201, 401, 403, 404, 409, 429, 500}) {
        for (const std::string body : {"", "{}", "{nonsense", "[]"}) {
            Election e(options("a"));
            for (int i = 0; i < 20; ++i) {
                if (e.take_call(now, 0)) e.on_answer(status, body, now);
                now = now + 1s;
            }
            EXPECT_FALSE(e.leading(now)) << status << body;
            EXPECT_LE(e.next_time() - now, 5s);
        }
    }
}

// Messages late, lost, in doubt; clocks that differ by hours and in speed: never two at once, and
// when all is calm, one.
TEST(ElectionProperty, NeverTwoLeadAtOnce) {
    EXPECT_TRUE(rc::check([](std::uint64_t seed) {
        std::mt19937_64 random(seed);
        Server server;
        struct One {
            Election election;
            std::int64_t offset_ns;
            double speed;
            std::deque<std::tuple<std::int64_t, int, std::string>> coming;  ///< when, status, body
        };
        std::vector<One> all;
        for (int i = 0; i < 3; ++i) {
            all.push_back({Election(options(std::string(1, static_cast<char>('a' + i)), seed + i)),
                           static_cast<std::int64_t>(random() % 7'200) * 1'000'000'000,
                           0.95 + 0.05 * static_cast<double>(random() % 3),
                           {}});
        }
        int led = 0;
        for (std::int64_t ms = 0; ms < 200'000; ms += 200) {
            const bool calm = ms > 120'000;
            int leaders = 0;
            for (One& one : all) {
                const TimePoint now{one.offset_ns +
                                    static_cast<std::int64_t>(ms * 1'000'000.0 * one.speed)};
                while (!one.coming.empty() && std::get<0>(one.coming.front()) <= ms) {
                    const auto [when, status, body] = one.coming.front();
                    one.coming.pop_front();
                    if (status == 0) {
                        one.election.on_failure(now);
                    } else {
                        one.election.on_answer(status, body, now);
                    }
                }
                if (const auto call = one.election.take_call(now, 0)) {
                    const auto fault = calm ? 9 : random() % 10;
                    const std::int64_t when =
                        ms + static_cast<std::int64_t>(calm ? 0 : random() % 6'000);
                    if (fault == 0) {
                        one.coming.emplace_back(when, 0, "");
                    } else {
                        const auto [status, body] = server.answer(*call);
                        // It was done, but nobody hears so.
                        one.coming.emplace_back(when, fault == 1 ? 0 : status, body);
                    }
                }
                leaders += one.election.leading(now) ? 1 : 0;
            }
            RC_ASSERT(leaders <= 1);
            if (ms > 180'000) led += leaders;
        }
        RC_ASSERT(led == 99);
    }));
}

}  // namespace
}  // namespace stator::kube
