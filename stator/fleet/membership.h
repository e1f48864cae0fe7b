#pragma once

#include <cstdint>
#include <string_view>

namespace stator::fleet {

/// What this process thinks of a worker.
///
///                     ready                     silent, canary lost
///   ┌────────────┐ ──────────► ┌───────┐ ───────────────────────────► ┌─────────┐
///   │ connecting │             │ ready │                              │ suspect │
///   └────────────┘ ◄────────── └───────┘ ◄─────────────────────────── └─────────┘
///      │            loading      │   │          heard, canary back      │   │
///      │                         │   │ go-away                  go-away │   │
///      │ lost                    │   └──────────► ┌──────────┐ ◄────────┘   │
///      │ removed            lost │                │ draining │              │ lost
///      │                 removed │                └──────────┘              │ removed
///      │                         ▼                     │ lost, removed      │
///      └───────────────────► ┌──────┐ ◄────────────────┘                    │
///                            │ gone │ ◄─────────────────────────────────────┘
///                            └──────┘
///
/// Also: a suspect worker that says it loads again is connecting; one whose first words are a
/// go-away is draining. A worker that discovery does not name any more is told kGoAway as long as
/// it has streams.
///
/// An address that is gone is dialled again (with back-off) as long as discovery names it; what
/// answers is a new worker with a life of its own, in `connecting`.
enum class MemberState : std::uint8_t {
    kConnecting,  ///< dialled, shaking hands, or loading its model
    kReady,       ///< takes new requests
    kSuspect,     ///< silent or stuck: no new requests, its streams may still come back
    kDraining,    ///< said go-away: finishes what it has
    kGone,        ///< the link is over; the end
};
std::string_view to_string(MemberState state);

enum class MemberEvent : std::uint8_t {
    kReady,       ///< its words say: model loaded, not draining
    kLoading,     ///< its words say: model not loaded
    kSilent,      ///< no byte for ClientLinkOptions::silent_after
    kHeard,       ///< bytes again
    kCanaryLost,  ///< the canary got no token in time
    kCanaryBack,  ///< it got one
    kGoAway,
    kLost,     ///< connection refused, closed, protocol broken, silent for too long
    kRemoved,  ///< discovery does not name it any more and it has no streams
};
std::string_view to_string(MemberEvent event);

/// The one place that decides. Events that change nothing in a state give that state.
[[nodiscard]] MemberState next_state(MemberState state, MemberEvent event);

}  // namespace stator::fleet
