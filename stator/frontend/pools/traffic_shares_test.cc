#include "stator/frontend/pools/traffic_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::frontend {
namespace {

using testing::ElementsAre;

TEST(TrafficShares, FollowTheReadyRanksWhereNothingIsConfigured) {
    const std::vector<SharingPool> pools{{"old", 1, 3}, {"new", 2, 1}};
    EXPECT_THAT(traffic_shares(pools, {}), ElementsAre(3.0, 1.0));
}

TEST(TrafficShares, ANewPoolGetsItsPercentageAndTheOldestTheRest) {
    ShareRules rules;
    rules.new_pool_percent = 10.0;
    const std::vector<SharingPool> pools{{"new", 2, 5}, {"old", 1, 1}, {"newer", 3, 2}};
    EXPECT_THAT(traffic_shares(pools, rules), ElementsAre(10.0, 80.0, 10.0));
}

TEST(TrafficShares, APoolsOwnRuleWins) {
    ShareRules rules;
    rules.new_pool_percent = 10.0;
    rules.pool_percent["new"] = 60.0;
    const std::vector<SharingPool> pools{{"old", 1, 1}, {"new", 2, 1}};
    EXPECT_THAT(traffic_shares(pools, rules), ElementsAre(40.0, 60.0));
    rules.pool_percent["old"] = 0.0;
    EXPECT_THAT(traffic_shares(pools, rules), ElementsAre(0.0, 60.0));
}

TEST(TrafficShares, WhoIsNotThereGetsNothing) {
    ShareRules rules;
    rules.new_pool_percent = 10.0;
    EXPECT_THAT(traffic_shares(std::vector<SharingPool>{{"old", 1, 0}, {"new", 2, 2}}, rules),
                ElementsAre(0.0, 10.0));
    EXPECT_THAT(traffic_shares(std::vector<SharingPool>{{"old", 1, 2}, {"new", 2, 0}}, rules),
                ElementsAre(100.0, 0.0));
}

TEST(TrafficShares, RulesThatLeaveNothingDoNotStopTheTraffic) {
    ShareRules rules;
    rules.pool_percent["a"] = 0.0;
    EXPECT_THAT(traffic_shares(std::vector<SharingPool>{{"a", 1, 2}}, rules), ElementsAre(1.0));
    EXPECT_THAT(traffic_shares(std::vector<SharingPool>{{"a", 1, 0}, {"b", 2, 0}}, {}),
                ElementsAre(1.0, 1.0));
    EXPECT_THAT(traffic_shares({}, rules), ElementsAre());
}

}  // namespace
}  // namespace stator::frontend
