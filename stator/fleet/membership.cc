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
            return "canary_lost";
        case MemberEvent::kCanaryBack:
            return "canary_back";
        case MemberEvent::kGoAway:
            return "go_away";
        case MemberEvent::kLost:
            return "lost";
        case MemberEvent::kRemoved:
            return "removed";
    }
    return "unknown";
}

MemberState next_state(MemberState state, MemberEvent event) {
    if (state == MemberState::kGone) return state;
    switch (event) {
        case MemberEvent::kLost:
        case MemberEvent::kRemoved:
            return MemberState::kGone;
        case MemberEvent::kGoAway:
            return MemberState::kDraining;
        case MemberEvent::kReady:
            return state == MemberState::kConnecting ? MemberState::kReady : state;
        case MemberEvent::kLoading:
            return state == MemberState::kDraining ? state : MemberState::kConnecting;
        case MemberEvent::kSilent:
        case MemberEvent::kCanaryLost:
            return state == MemberState::kReady ? MemberState::kSuspect : state;
        case MemberEvent::kHeard:
        case MemberEvent::kCanaryBack:
            return state == MemberState::kSuspect ? MemberState::kReady : state;
    }
    return state;
}

}  // namespace stator::fleet
