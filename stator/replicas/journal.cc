#include "stator/replicas/journal.h"

#include <algorithm>
#include <utility>

namespace stator::replicas {

using Kind = BookingEvent::Kind;

void Journal::booked(std::shared_ptr<const SharedBooking> booking, Nanos now) {
    const std::uint64_t number = booking->number;
    batch_.push_back({Kind::kBooked, number, now, booking, 0});
    live_.insert_or_assign(number, Live{std::move(booking), false, now});
}

void Journal::first_token(std::uint64_t number, std::uint32_t cached_tokens, Nanos now) {
    const auto found = live_.find(number);
    if (found == live_.end() || std::exchange(found->second.prefilled, true)) return;
    batch_.push_back({Kind::kFirstToken, number, now, nullptr, cached_tokens});
}

void Journal::ended(std::uint64_t number, Nanos now) {
    if (const auto found = live_.find(number); found != live_.end()) end(found, now);
}

void Journal::end(std::map<std::uint64_t, Live>::iterator live, Nanos now) {
    batch_.push_back({Kind::kEnded, live->first, now, nullptr, 0});
    live_.erase(live);
}

void Journal::flush(std::vector<Message>& out) {
    for (std::size_t at = 0; at < batch_.size(); at += kMostEvents) {
        auto delta = std::make_shared<Delta>();
        delta->sequence = ++sequence_;
        const auto first = batch_.begin() + static_cast<std::ptrdiff_t>(at);
        const std::size_t n = std::min(kMostEvents, batch_.size() - at);
        delta->events.assign(first, first + static_cast<std::ptrdiff_t>(n));
        out.emplace_back(*delta);
        ring_events_ += n;
        ring_.push_back(std::move(delta));
    }
    batch_.clear();
    while (ring_.size() > options_.ring_deltas || ring_events_ > options_.ring_events) {
        ring_events_ -= ring_.front()->events.size();
        ring_.pop_front();
    }
}

void Journal::digest(Nanos now, std::vector<Message>& out) {
    // By number is by time: a router numbers its bookings in order.
    while (!live_.empty() && now - live_.begin()->second.at > options_.booking_ttl) {
        end(live_.begin(), now);
        ++expired_;
    }
    flush(out);
    Digest d;
    d.sequence = sequence_;
    d.oldest = sequence_ - ring_.size() + 1;
    // Where there are very many, ranges are longer.
    const std::size_t each = std::max(kRangeBookings, live_.size() / kMostRanges + 1);
    d.ranges.emplace_back();
    for (const auto& [number, live] : live_) {
        RangeDigest* last = &d.ranges.back();
        if (last->count == each) {
            last->range.high = number - 1;
            last = &d.ranges.emplace_back();
            last->range.low = number;
        }
        ++last->count;
        last->hash += state_hash(number, live.prefilled);
    }
    out.emplace_back(std::move(d));
}

void Journal::answer(const Ask& ask, std::vector<Message>& out) {
    flush(out);
    for (std::size_t i = 0; i < std::min(ask.deltas.size(), kMostAsked); ++i) {
        const std::uint64_t oldest = sequence_ - ring_.size() + 1;
        const std::uint64_t wanted = ask.deltas[i];
        if (wanted < oldest || wanted > sequence_) continue;  // the next digest says so
        out.emplace_back(once_more(*ring_[wanted - oldest]));
    }
    std::size_t parts = 0;
    for (std::size_t i = 0; i < std::min(ask.ranges.size(), kMostAsked); ++i) {
        if (parts < options_.parts_per_ask) answer_range(ask.ranges[i], parts, out);
    }
}

/// A booking that has ended since would come to life again at whoever has heard of its end.
Delta Journal::once_more(const Delta& delta) const {
    Delta out;
    out.sequence = delta.sequence;
    out.again = true;
    for (const BookingEvent& e : delta.events) {
        const auto live = live_.find(e.number);
        if (live == live_.end()) {
            if (e.kind == Kind::kEnded) out.events.push_back(e);
            continue;
        }
        if (e.kind != Kind::kBooked) {
            out.events.push_back(e);
            continue;
        }
        out.events.push_back(e);
        if (live->second.prefilled) {
            out.events.push_back(
                {Kind::kFirstToken, e.number, e.at, nullptr, e.booking->cached_tokens});
        }
    }
    // Of a full delta some first tokens are left out: a digest will tell.
    if (out.events.size() > kMostEvents) out.events.resize(kMostEvents);
    return out;
}

void Journal::answer_range(NumberRange range, std::size_t& parts, std::vector<Message>& out) {
    auto at = live_.lower_bound(range.low);
    for (;;) {
        Part part;
        part.sequence = sequence_;
        part.range = range;
        while (at != live_.end() && at->first <= range.high &&
               part.bookings.size() < kRangeBookings) {
            part.bookings.push_back({at->second.booking, at->second.prefilled, at->second.at});
            ++at;
        }
        const bool last = at == live_.end() || at->first > range.high;
        if (!last) part.range.high = at->first - 1;
        range.low = part.range.high + 1;
        out.emplace_back(std::move(part));
        if (++parts >= options_.parts_per_ask || last) return;
    }
}

}  // namespace stator::replicas
