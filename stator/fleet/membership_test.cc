#include "stator/fleet/membership.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace stator::fleet {
namespace {

using enum MemberState;
using E = MemberEvent;

constexpr std::array kStates{kConnecting, kReady, kSuspect, kDraining, kGone};
constexpr std::array kEvents{E::kReady,      E::kLoading, E::kSilent, E::kHeard,  E::kCanaryLost,
                             E::kCanaryBack, E::kGoAway,  E::kLost,   E::kRemoved};

TEST(Membership, EveryArrowOfTheDiagramAndNoOther) {
    struct Arrow {
        MemberState from;
        MemberEvent event;
        MemberState to;
    };
    const std::array arrows{
        Arrow{kConnecting, E::kReady, kReady},     Arrow{kConnecting, E::kGoAway, kDraining},
        Arrow{kReady, E::kLoading, kConnecting},   Arrow{kReady, E::kSilent, kSuspect},
        Arrow{kReady, E::kCanaryLost, kSuspect},   Arrow{kReady, E::kGoAway, kDraining},
        Arrow{kSuspect, E::kHeard, kReady},        Arrow{kSuspect, E::kCanaryBack, kReady},
        Arrow{kSuspect, E::kLoading, kConnecting}, Arrow{kSuspect, E::kGoAway, kDraining},
    };
    for (const MemberState from : kStates) {
        for (const MemberEvent event : kEvents) {
            MemberState expected = from;
            if (from != kGone && (event == E::kLost || event == E::kRemoved)) expected = kGone;
            for (const Arrow& a : arrows) {
                if (a.from == from && a.event == event) expected = a.to;
            }
            EXPECT_EQ(next_state(from, event), expected)
                << to_string(from) << " + " << to_string(event);
        }
    }
}

TEST(Membership, NamesAreDistinct) {
    std::set<std::string_view> names;
    for (const MemberState s : kStates) names.insert(to_string(s));
    EXPECT_EQ(names.size(), kStates.size());
    names.clear();
    for (const MemberEvent e : kEvents) names.insert(to_string(e));
    EXPECT_EQ(names.size(), kEvents.size());
}

}  // namespace
}  // namespace stator::fleet
