#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/base/strong.h"
#include "stator/protocol/handoff.h"

namespace stator::transfer {

using Slot = Strong<std::uint64_t, struct SlotTag>;

/// How a handoff ended.
enum class End : std::uint8_t { kClaimed, kReleased, kExpired, kAbandoned };
inline constexpr std::size_t kEnds = 4;

/// Which handoffs this process holds for others, and what they may take together.
///
///   reserve() ──▶ reserved ──publish()──▶ published ──claim()────▶ claimed
///                    │                        ├──────release()──▶ released
///                abandon()                    └──────expire()───▶ expired
///                    ▼
///                abandoned
///
/// Every slot ends exactly once and is forgotten then. Pure: no memory of bytes, no clock, no
/// threads; its owner locks.
class Ledger {
  public:
    struct Limits {
        std::uint64_t budget_bytes = 0;  ///< of slots that have not ended
        std::size_t most_unclaimed = 0;  ///< the same in number
        std::chrono::nanoseconds lease{};
    };
    explicit Ledger(Limits limits) : limits_(limits) {}

    /// kExhausted: over a limit. The message says which.
    [[nodiscard]] Result<Slot> reserve(std::uint64_t bytes);
    /// A reservation that will not be published; true if it was one.
    bool abandon(Slot slot);
    /// From now on it can be claimed by `id`, until the time returned. kInvalidArgument: no
    /// reservation; kAborted: the id is taken.
    [[nodiscard]] Result<TimePoint> publish(Slot slot, const protocol::HandoffId& id,
                                            TimePoint now);
    /// kNotFound: claimed, released or expired, or never here. One whose time is over is left to
    /// expire().
    [[nodiscard]] Result<Slot> claim(const protocol::HandoffId& id, TimePoint now);
    /// The slot, if there was one to release.
    std::optional<Slot> release(const protocol::HandoffId& id);
    /// Ends all whose time is over.
    [[nodiscard]] std::vector<Slot> expire(TimePoint now);
    /// Forgets all (released); reservations too.
    [[nodiscard]] std::vector<Slot> clear();

    /// When expire() has something to do; none while nothing is published.
    [[nodiscard]] std::optional<TimePoint> next_expiry() const;
    [[nodiscard]] std::size_t unclaimed() const { return slots_.size(); }
    [[nodiscard]] std::uint64_t unclaimed_bytes() const { return bytes_; }
    [[nodiscard]] std::uint64_t ended(End how) const {
        return ended_[static_cast<std::size_t>(how)];
    }
    [[nodiscard]] const Limits& limits() const { return limits_; }

  private:
    struct Entry {
        std::uint64_t bytes = 0;
        std::optional<protocol::HandoffId> id;  ///< published
        TimePoint expires;
    };
    using Slots = std::map<Slot, Entry>;
    Slot end(Slots::iterator entry, End how);

    Limits limits_;
    std::uint64_t last_slot_ = 0;
    std::uint64_t bytes_ = 0;
    Slots slots_;
    std::map<protocol::HandoffId, Slot> published_;
    std::set<std::pair<TimePoint, Slot>> by_expiry_;
    std::array<std::uint64_t, kEnds> ended_{};
};

}  // namespace stator::transfer
