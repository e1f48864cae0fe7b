#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stator/router/route.h"

namespace stator::router {

/// A booking as other routers of the same pool have to know it: what it is for their load. Ranks
/// are meant by their names, since each router numbers them by itself.
struct SharedBooking {
    std::uint64_t number = 0;  ///< BookingId of the router that made it: later ones are greater
    std::string rank;
    std::string decode_rank;  ///< of a pair; else empty
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;  ///< predicted
    std::uint32_t kv_tokens = 0;      ///< that it will need when it ends
    std::uint8_t level = 1;           ///< RankTable::level_of()
    bool prefills = true;             ///< its rank computes its prompt
    float extra_s = 0;                ///< media and adapters, on top of the prompt's computation
    float lasts_s = 0;                ///< predicted, from the booking to its end
    std::uint64_t session = 0;
    /// What ActivePrefixes keeps of its prompt; at most kMostPlaces.
    std::vector<std::uint64_t> places;
    bool operator==(const SharedBooking&) const = default;

    /// With blocks of 16 tokens: a prompt of 31,000. Of a longer one no more is told.
    static constexpr std::size_t kMostPlaces = 512;
};

/// Told of every booking that a router makes itself, in order. Called from within the router's
/// methods: must not call it.
class BookingSink {
  public:
    virtual ~BookingSink() = default;
    virtual void booked(std::shared_ptr<const SharedBooking> booking, Nanos now) = 0;
    virtual void first_token(std::uint64_t number, std::uint32_t cached_tokens, Nanos now) = 0;
    virtual void ended(std::uint64_t number, Nanos now) = 0;
};

}  // namespace stator::router
