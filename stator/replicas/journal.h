#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "stator/replicas/messages.h"

namespace stator::replicas {

struct JournalOptions {
    std::size_t ring_deltas = 512;   ///< kept for those who missed some …
    std::size_t ring_events = 4096;  ///< … and no more events than this
    std::size_t parts_per_ask = 16;  ///< an answer holds no more; the rest is asked for again
    /// A booking that nobody has ended by then is not told of any more.
    Nanos booking_ttl = std::chrono::minutes(30);
};

/// One router's bookings as they are told to its peers: deltas of what happened, digests of what
/// is live, answers to those who missed something. Without I/O or clock; lives on its router's
/// thread. Memory: a SharedBooking for each that is live, and the ring.
class Journal final : public router::BookingSink {
  public:
    explicit Journal(JournalOptions options = {}) : options_(options) {}

    void booked(std::shared_ptr<const SharedBooking> booking, Nanos now) override;
    void first_token(std::uint64_t number, std::uint32_t cached_tokens, Nanos now) override;
    void ended(std::uint64_t number, Nanos now) override;

    /// There is something to flush.
    [[nodiscard]] bool pending() const { return !batch_.empty(); }
    [[nodiscard]] std::size_t live() const { return live_.size(); }
    [[nodiscard]] std::uint64_t sequence() const { return sequence_; }
    [[nodiscard]] std::uint64_t expired() const { return expired_; }

    // What is to be sent is appended, in this order.
    /// Deltas of what happened since the last one; nothing where nothing did.
    void flush(std::vector<Message>& out);
    /// And a digest of all that is live. Bookings past their time to live are dropped before.
    void digest(Nanos now, std::vector<Message>& out);
    /// To what somebody asks of this replica.
    void answer(const Ask& ask, std::vector<Message>& out);

  private:
    struct Live {
        std::shared_ptr<const SharedBooking> booking;
        bool prefilled = false;
        Nanos at{0};
    };

    void end(std::map<std::uint64_t, Live>::iterator live, Nanos now);
    void answer_range(NumberRange range, std::size_t& parts, std::vector<Message>& out);
    [[nodiscard]] Delta once_more(const Delta& delta) const;

    JournalOptions options_;
    std::map<std::uint64_t, Live> live_;
    std::vector<BookingEvent> batch_;
    std::deque<std::shared_ptr<const Delta>> ring_;  ///< the last is `sequence_`
    std::size_t ring_events_ = 0;
    std::uint64_t sequence_ = 0;
    std::uint64_t expired_ = 0;
};

}  // namespace stator::replicas
