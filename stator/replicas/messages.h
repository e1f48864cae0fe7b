#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "stator/router/shared_booking.h"

namespace stator::replicas {

using router::Nanos;
using router::SharedBooking;

/// A router among those of the same pool, for one life of its process: its incarnation.
using ReplicaId = Strong<std::uint64_t, struct ReplicaIdTag>;

/// Something that became of a booking.
struct BookingEvent {
    enum class Kind : std::uint8_t { kBooked, kFirstToken, kEnded };
    Kind kind = Kind::kBooked;
    std::uint64_t number = 0;
    Nanos at{0};                                   ///< by the clock of whoever has the event
    std::shared_ptr<const SharedBooking> booking;  ///< kBooked
    std::uint32_t cached_tokens = 0;               ///< kFirstToken: of the prompt, by the engine
};

/// What happened since the delta before. Sequences count from 1.
struct Delta {
    std::uint64_t sequence = 0;
    /// Sent once more, because somebody missed it: without bookings that have ended since.
    bool again = false;
    std::vector<BookingEvent> events;
};

/// Numbers from `low` to `high`, both included.
struct NumberRange {
    std::uint64_t low = 0;
    std::uint64_t high = ~std::uint64_t{0};
    bool operator==(const NumberRange&) const = default;
};

struct RangeDigest {
    NumberRange range;
    std::uint32_t count = 0;
    std::uint64_t hash = 0;  ///< sum of state_hash() of the live bookings
};

/// What is live after a delta. The ranges follow each other and cover all numbers.
struct Digest {
    std::uint64_t sequence = 0;  ///< of the last delta; 0 = none yet
    std::uint64_t oldest = 1;    ///< delta that can still be asked for
    std::vector<RangeDigest> ranges;
};

/// All that is live of a range of numbers, after a delta.
struct Part {
    struct Entry {
        std::shared_ptr<const SharedBooking> booking;
        bool prefilled = false;
        Nanos at{0};  ///< booked
    };
    std::uint64_t sequence = 0;
    NumberRange range;
    std::vector<Entry> bookings;  ///< by number
};

/// One replica asks another for what it misses of it.
struct Ask {
    ReplicaId of;
    std::vector<std::uint64_t> deltas;
    std::vector<NumberRange> ranges;
};

using Message = std::variant<Delta, Digest, Part, Ask>;

// What a message may hold; more is refused by readers and not sent.
constexpr std::size_t kMostEvents = 1024;
constexpr std::size_t kMostRanges = 4096;
constexpr std::size_t kRangeBookings = 64;  ///< live bookings in a digest's range, and in a part
constexpr std::size_t kMostAsked = 64;      ///< deltas, and ranges, in one ask

/// Of a live booking's number and whether its prompt is computed (SplitMix64's finisher).
[[nodiscard]] inline std::uint64_t state_hash(std::uint64_t number, bool prefilled) {
    std::uint64_t h = number * 2 + (prefilled ? 1 : 0) + 0x9e3779b97f4a7c15U;
    h = (h ^ (h >> 30U)) * 0xbf58476d1ce4e5b9U;
    h = (h ^ (h >> 27U)) * 0x94d049bb133111ebU;
    return h ^ (h >> 31U);
}

}  // namespace stator::replicas
