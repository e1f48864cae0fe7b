#include "stator/fleet/membership.h"

#include <gtest/gtest.h>

#include <array>

namespace stator::fleet {
namespace {

using enum MemberState;

constexpr std::array kStates{kConnecting, kReady, kSuspect, kDraining, kGone};
constexpr std::array kEvents{
    MemberEvent::kReady,  MemberEvent::kLoading,    MemberEvent::kSilent,
    MemberEvent::kHeard,  MemberEvent::kCanaryLost, MemberEvent::kCanaryBack,
    MemberEvent::kGoAway, MemberEvent::kLost,       MemberEvent::kRemoved};

/// The drawing in membership.h as a table: what is not in it changes nothing.
MemberState drawn(MemberState from, MemberEvent event) {
    struct Arrow {
        MemberState from;
        MemberEvent event;
        MemberState to;
    };
    static constexpr std::array kArrows{
        Arrow{kConnecting, MemberEvent::kReady, kReady},
        Arrow{kConnecting, MemberEvent::kGoAway, kDraining},
        Arrow{kConnecting, MemberEvent::kLost, kGone},
        Arrow{kConnecting, MemberEvent::kRemoved, kGone},
        Arrow{kReady, MemberEvent::kLoading, kConnecting},
        Arrow{kReady, MemberEvent::kSilent, kSuspect},
        Arrow{kReady, MemberEvent::kCanaryLost, kSuspect},
        Arrow{kReady, MemberEvent::kGoAway, kDraining},
        Arrow{kReady, MemberEvent::kLost, kGone},
        Arrow{kReady, MemberEvent::kRemoved, kGone},
        Arrow{kSuspect, MemberEvent::kHeard, kReady},
        Arrow{kSuspect, MemberEvent::kCanaryBack, kReady},
        Arrow{kSuspect, MemberEvent::kGoAway, kDraining},
        Arrow{kSuspect, MemberEvent::kLost, kGone},
        Arrow{kSuspect, MemberEvent::kRemoved, kGone},
        Arrow{kDraining, MemberEvent::kLost, kGone},
        Arrow{kDraining, MemberEvent::kRemoved, kGone},
    };
    for (const Arrow& a : kArrows) {
        if (a.from == from && a.event == event) return a.to;
    }
    return from;
}

TEST(Membership, IsWhatTheDrawingSays) {
    for (const MemberState state : kStates) {
        for (const MemberEvent event : kEvents) {
            EXPECT_EQ(next_state(state, event), drawn(state, event))
                << to_string(state) << " + " << to_string(event);
        }
    }
}

}  // namespace
}  // namespace stator::fleet
