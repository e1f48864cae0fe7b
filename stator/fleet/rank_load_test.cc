#include "stator/fleet/rank_load.h"

#include <gtest/gtest.h>

namespace stator::fleet {
namespace {

protocol::LoadReport report(std::uint32_t running, std::uint32_t waiting) {
    protocol::LoadReport r;
    r.running = running;
    r.waiting = waiting;
    r.running_limit = 4;
    r.waiting_limit = 4;
    return r;
}

TEST(RankLoad, CountsWhatNoReportHasSeenYet) {
    RankLoad load({.rank = 0, .max_running = 4, .max_waiting = 8, .kv_total_tokens = 0});
    EXPECT_EQ(load.read().running_limit, 4U);
    EXPECT_EQ(load.read().waiting_limit, 8U);
    for (std::uint64_t booking = 1; booking <= 3; ++booking) load.opened(booking);
    EXPECT_EQ(load.read().waiting, 3U);
    load.report(report(2, 0), 2);
    EXPECT_EQ(load.read().running, 2U);
    EXPECT_EQ(load.read().waiting, 1U);
    load.report(report(3, 0), 3);
    EXPECT_EQ(load.read().waiting, 0U);
}

TEST(RankLoad, TakesOffWhatHasEndedSince) {
    RankLoad load({.rank = 0, .max_running = 4, .max_waiting = 4, .kv_total_tokens = 0});
    for (std::uint64_t booking = 1; booking <= 6; ++booking) load.opened(booking);
    load.report(report(4, 2), 6);
    load.ended();
    EXPECT_EQ(load.read(), report(4, 1));
    load.ended();
    load.ended();
    EXPECT_EQ(load.read(), report(3, 0));
    load.opened(7);
    EXPECT_EQ(load.read(), report(4, 0));
    for (int i = 0; i < 9; ++i) load.ended();
    EXPECT_EQ(load.read(), report(0, 0));
}

}  // namespace
}  // namespace stator::fleet
