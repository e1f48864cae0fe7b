#include "stator/loadgen/schedule.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <set>
#include <vector>

namespace stator::loadgen {
namespace {

using std::chrono::nanoseconds;
using workload::RequestSpec;

class Listed final : public workload::Workload {
  public:
    explicit Listed(std::vector<RequestSpec> specs) : specs_(std::move(specs)) {}
    std::optional<RequestSpec> next() override {
        if (at_ == specs_.size()) return std::nullopt;
        return specs_[at_++];
    }
    [[nodiscard]] std::size_t given() const { return at_; }

  private:
    std::vector<RequestSpec> specs_;
    std::size_t at_ = 0;
};

RequestSpec root(std::uint64_t index, std::int64_t start) {
    RequestSpec r;
    r.index = r.session = index;
    r.start = nanoseconds(start);
    r.output_tokens = 1;
    return r;
}

RequestSpec follower(std::uint64_t index, std::uint64_t session, std::uint64_t after,
                     std::int64_t think) {
    RequestSpec r = root(index, think);
    r.session = session;
    r.after = after;
    return r;
}

constexpr ScheduleOptions kOpen{.most_at_once = 1'000, .closed = false};

TEST(Schedule, OpenLoopStartsAtTheFixedTimes) {
    Listed workload({root(0, 10), root(1, 20), root(2, 20)});
    Schedule schedule(workload, kOpen);
    EXPECT_EQ(schedule.next_start(), nanoseconds(10));
    EXPECT_FALSE(schedule.take(nanoseconds(9)));
    EXPECT_EQ(schedule.take(nanoseconds(10))->spec.index, 0u);
    EXPECT_FALSE(schedule.take(nanoseconds(10)));
    // Nobody waits for ends, and a late look changes no time.
    EXPECT_EQ(schedule.take(nanoseconds(50))->intended, nanoseconds(20));
    EXPECT_EQ(schedule.take(nanoseconds(50))->intended, nanoseconds(20));
    EXPECT_FALSE(schedule.next_start());
    EXPECT_FALSE(schedule.done());
    for (std::uint64_t i = 0; i < 3; ++i) schedule.ended(root(i, 0), nanoseconds(60));
    EXPECT_TRUE(schedule.done());
}

TEST(Schedule, TheBoundMakesStartsLateAndStopNamesThem) {
    Listed workload({root(0, 1), root(1, 2), root(2, 3), root(3, 100)});
    Schedule schedule(workload, {.most_at_once = 1, .closed = false});
    ASSERT_TRUE(schedule.take(nanoseconds(10)));
    EXPECT_FALSE(schedule.take(nanoseconds(10)));
    EXPECT_FALSE(schedule.next_start());
    schedule.ended(root(0, 1), nanoseconds(40));
    EXPECT_EQ(schedule.take(nanoseconds(40))->intended, nanoseconds(2));
    const auto held_back = schedule.stop(nanoseconds(50));
    ASSERT_EQ(held_back.size(), 1u);
    EXPECT_EQ(held_back[0].spec.index, 2u);
    EXPECT_FALSE(schedule.take(nanoseconds(200)));
    schedule.ended(root(1, 2), nanoseconds(60));
    EXPECT_TRUE(schedule.done());
}

TEST(Schedule, ATurnStartsItsThinkTimeAfterTheOneBefore) {
    Listed workload({root(0, 0), follower(1, 0, 0, 5), follower(2, 0, 1, 7), root(3, 100)});
    Schedule schedule(workload, kOpen);
    ASSERT_TRUE(schedule.take(nanoseconds(0)));
    EXPECT_EQ(schedule.next_start(), nanoseconds(100));
    EXPECT_EQ(schedule.session_requests(0), 3u);
    schedule.ended(root(0, 0), nanoseconds(30));
    EXPECT_EQ(schedule.next_start(), nanoseconds(35));
    EXPECT_FALSE(schedule.take(nanoseconds(34)));
    const auto second = schedule.take(nanoseconds(36));
    EXPECT_EQ(second->spec.index, 1u);
    EXPECT_EQ(second->intended, nanoseconds(35));
    schedule.ended(second->spec, nanoseconds(40));
    const auto third = schedule.take(nanoseconds(47));
    EXPECT_EQ(third->spec.index, 2u);
    schedule.ended(third->spec, nanoseconds(48));
    EXPECT_EQ(schedule.session_requests(0), 0u);
}

TEST(Schedule, WhatHoldsOutputsWaitsForAllOfThem) {
    RequestSpec last = follower(3, 0, 2, 1);
    last.prompt = {{1, 10, std::nullopt}, {2, 5, 0}, {3, 5, 1}};
    Listed workload({root(0, 0), follower(1, 0, 0, 0), follower(2, 0, 0, 0), last});
    Schedule schedule(workload, kOpen);
    const auto take = [&](std::int64_t now) { return schedule.take(nanoseconds(now)); };
    ASSERT_TRUE(take(0));
    schedule.ended(root(0, 0), nanoseconds(1));
    const auto a = take(1);
    const auto b = take(1);
    ASSERT_TRUE(a && b);
    schedule.ended(b->spec, nanoseconds(2));
    EXPECT_FALSE(take(100));
    schedule.ended(a->spec, nanoseconds(200));
    EXPECT_EQ(take(201)->intended, nanoseconds(201));
}

TEST(Schedule, ClosedLoopKeepsItsNumber) {
    Listed workload({root(0, 0), follower(1, 0, 0, 10), root(2, 0), root(3, 0), root(4, 0)});
    Schedule schedule(workload, {.most_at_once = 2, .closed = true});
    ASSERT_TRUE(schedule.take(nanoseconds(0)));
    EXPECT_EQ(schedule.take(nanoseconds(0))->spec.index, 2u);
    EXPECT_FALSE(schedule.take(nanoseconds(0)));
    schedule.ended(root(0, 0), nanoseconds(50));
    // While the session thinks, another takes its place.
    const auto next = schedule.take(nanoseconds(51));
    EXPECT_EQ(next->spec.index, 3u);
    EXPECT_EQ(next->intended, nanoseconds(51));
    schedule.ended(root(2, 0), nanoseconds(70));
    EXPECT_EQ(schedule.take(nanoseconds(70))->spec.index, 1u);
}

/// Whatever ends when: every request runs once, none before its time, never more than the bound.
TEST(Schedule, GivesEveryRequestOnce) {
    EXPECT_TRUE(rc::check([] {
        std::vector<RequestSpec> specs;
        std::int64_t start = 0;
        const auto sessions = *rc::gen::inRange(1, 8);
        for (int s = 0; s < sessions; ++s) {
            start += *rc::gen::inRange(0, 20);
            const auto first = specs.size();
            specs.push_back(root(first, start));
            const auto turns = *rc::gen::inRange(0, 4);
            for (int t = 0; t < turns; ++t) {
                const auto after = *rc::gen::inRange(first, specs.size());
                specs.push_back(follower(specs.size(), first, after, *rc::gen::inRange(0, 10)));
            }
        }
        const bool closed = *rc::gen::arbitrary<bool>();
        const auto bound = *rc::gen::inRange<std::size_t>(1, 5);
        Listed workload(specs);
        Schedule schedule(workload, {.most_at_once = bound, .closed = closed});
        std::map<std::uint64_t, std::int64_t> ends;
        std::vector<RequestSpec> running;
        std::set<std::uint64_t> seen;
        std::int64_t now = 0;
        for (int step = 0; !schedule.done() && step < 10'000; ++step) {
            while (auto s = schedule.take(nanoseconds(now))) {
                RC_ASSERT(seen.insert(s->spec.index).second);
                RC_ASSERT(s->intended <= nanoseconds(now));
                if (s->spec.after) {
                    RC_ASSERT(ends.contains(*s->spec.after));
                    RC_ASSERT(now >= ends[*s->spec.after] + s->spec.start.count());
                } else if (!closed) {
                    RC_ASSERT(now >= s->spec.start.count());
                }
                running.push_back(s->spec);
                RC_ASSERT(running.size() <= bound);
                RC_ASSERT(running.size() == schedule.running());
            }
            now += *rc::gen::inRange(1, 10);
            if (!running.empty() && *rc::gen::arbitrary<bool>()) {
                const auto i = *rc::gen::inRange<std::size_t>(0, running.size());
                const RequestSpec spec = running[i];
                running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
                ends[spec.index] = now;
                schedule.ended(spec, nanoseconds(now));
            }
        }
        RC_ASSERT(seen.size() == specs.size());
        for (const RequestSpec& spec : specs)
            RC_ASSERT(schedule.session_requests(spec.session) == 0u);
    }));
}

}  // namespace
}  // namespace stator::loadgen
