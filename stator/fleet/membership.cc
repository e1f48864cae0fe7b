#include "stator/fleet/membership.h"

namespace stator::fleet {

std::string_view to_string(MemberState state) {
    switch (state) {
        case MemberState::kConnecting:
            return "connecting";
        case MemberState::kReady:
            return "ready";
        case MemberState::kSuspect:
            return "suspect";
        case MemberState::kDraining:
            return "draining";
        case MemberState::kGone:
            return "gone";
    }
    return "unknown";
}

std::string_view to_string(MemberEvent event) {
    switch (event) {
        case MemberEvent::kReady:
            return "ready";
        case MemberEvent::kLoading:
            return "loading";
        case MemberEvent::kSilent:
            return "silent";
        case MemberEvent::kHeard:
            return "heard";
        case MemberEvent::kCanaryLost:
            return "canary lost";
        case MemberEvent::kCanaryBack:
            return "canary back";
        case MemberEvent::kGoAway:
            return "go-away";
        case MemberEvent::kLost:
            return "lost";
        case MemberEvent::kRemoved:
            return "removed";
    }
    return "unknown";
}

MemberState next_state(MemberState state, MemberEvent event) {
    using enum MemberState;
    // The end stays the end, and both ways to it hold everywhere.
    if (state == kGone) return kGone;
    switch (event) {
        case MemberEvent::kLost:
        case MemberEvent::kRemoved:
            return kGone;
        case MemberEvent::kGoAway:
            return kDraining;
        case MemberEvent::kReady:
            return state == kConnecting ? kReady : state;
        case MemberEvent::kLoading:
            return state == kReady ? kConnecting : state;
        case MemberEvent::kSilent:
        case MemberEvent::kCanaryLost:
            return state == kReady ? kSuspect : state;
        case MemberEvent::kHeard:
        case MemberEvent::kCanaryBack:
            return state == kSuspect ? kReady : state;
    }
    return state;
}

}  // namespace stator::fleet
