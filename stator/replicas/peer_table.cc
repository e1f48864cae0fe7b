#include "stator/replicas/peer_table.h"

#include <algorithm>

namespace stator::replicas {

using Kind = BookingEvent::Kind;

void PeerTable::take(ReplicaId from, const Message& message, Nanos now) {
    if (std::holds_alternative<Ask>(message)) return heard(from, now);
    auto found = peers_.find(from);
    if (found == peers_.end()) {
        if (peers_.size() >= options_.max_peers) {
            ++counters_.refused;
            return;
        }
        found = peers_.try_emplace(from).first;
    }
    Peer& peer = found->second;
    peer.heard_at = now;
    if (const auto* delta = std::get_if<Delta>(&message)) return on_delta(peer, *delta);
    if (const auto* digest = std::get_if<Digest>(&message)) return on_digest(peer, *digest);
    if (const auto* part = std::get_if<Part>(&message)) return on_part(peer, *part, now);
}

void PeerTable::heard(ReplicaId from, Nanos now) {
    if (const auto found = peers_.find(from); found != peers_.end()) found->second.heard_at = now;
}

/// What there is after a delta was heard of: those between are missing.
void PeerTable::advance(Peer& peer, std::uint64_t sequence) {
    if (!peer.started) {
        peer.started = true;
        peer.sequence = sequence;
        // What was before the first delta is nothing.
        if (sequence > 1) doubt_all(peer);
        return;
    }
    if (sequence <= peer.sequence) return;
    const std::uint64_t between = sequence - peer.sequence - 1;
    counters_.missed += between;
    if (between + peer.missing.size() > options_.max_missing) {
        doubt_all(peer);
    } else {
        for (std::uint64_t s = peer.sequence + 1; s < sequence; ++s) peer.missing.insert(s);
    }
    peer.sequence = sequence;
}

void PeerTable::doubt_all(Peer& peer) {
    peer.missing.clear();
    peer.doubtful.assign(1, NumberRange{});
    peer.in_step = false;
}

void PeerTable::on_delta(Peer& peer, const Delta& delta) {
    const bool is_new = !peer.started || delta.sequence > peer.sequence;
    if (is_new && delta.again) return;  // it was asked for by another: ours has not come yet
    if (!is_new && peer.missing.erase(delta.sequence) == 0) {
        ++counters_.duplicates;
        return;
    }
    if (is_new) {
        advance(peer, delta.sequence);
        ++counters_.deltas;
    } else {
        ++counters_.repaired;
    }
    for (const BookingEvent& e : delta.events) {
        if (e.kind == Kind::kBooked) {
            if (e.booking != nullptr) add(peer, e.booking, false, e.at);
            continue;
        }
        const auto found = peer.bookings.find(e.number);
        if (found == peer.bookings.end()) continue;
        if (e.kind == Kind::kFirstToken) {
            set_prefilled(found->second, e.cached_tokens, !delta.again, e.at);
        } else {
            end(found->second, e.at);
            peer.bookings.erase(found);
        }
    }
}

void PeerTable::on_digest(Peer& peer, const Digest& digest) {
    const bool known = peer.started;
    if (known && digest.sequence < peer.sequence) return;  // an old one
    if (known && digest.sequence > peer.sequence) {
        advance(peer, digest.sequence + 1);  // the last one too is missing
        peer.sequence = digest.sequence;
    }
    peer.started = true;
    peer.sequence = digest.sequence;
    if (!peer.missing.empty() && *peer.missing.begin() < digest.oldest) peer.missing.clear();
    if (!peer.missing.empty() || peer.full) return;
    peer.doubtful.clear();
    auto at = peer.bookings.begin();
    for (const RangeDigest& r : digest.ranges) {
        std::uint32_t count = 0;
        std::uint64_t hash = 0;
        for (; at != peer.bookings.end() && at->first <= r.range.high; ++at) {
            ++count;
            hash += state_hash(at->first, at->second.prefilled);
        }
        if (count != r.count || hash != r.hash) peer.doubtful.push_back(r.range);
    }
    peer.in_step = peer.doubtful.empty();
    if (peer.in_step) {
        peer.ask_wait = Nanos{0};
    } else if (known) {
        ++counters_.mismatches;
    }
}

void PeerTable::on_part(Peer& peer, const Part& part, Nanos now) {
    // One that is older than what was heard since would bring back what has ended.
    if (peer.started && part.sequence < peer.sequence) return;
    if (!peer.started) {
        peer.started = true;
        peer.sequence = part.sequence;
        doubt_all(peer);
    }
    ++counters_.repaired;
    const auto [low, high] = part.range;
    auto there = peer.bookings.lower_bound(low);
    for (const Part::Entry& e : part.bookings) {
        const std::uint64_t number = e.booking->number;
        if (number < low || number > high) continue;
        while (there != peer.bookings.end() && there->first < number) {
            end(there->second, now);
            there = peer.bookings.erase(there);
        }
        if (there == peer.bookings.end() || there->first != number) {
            add(peer, e.booking, e.prefilled, e.at);
            continue;
        }
        if (e.prefilled) set_prefilled(there->second, e.booking->cached_tokens, false, now);
        ++there;
    }
    while (there != peer.bookings.end() && there->first <= high) {
        end(there->second, now);
        there = peer.bookings.erase(there);
    }
    std::erase_if(peer.doubtful, [&](NumberRange& r) {
        const bool begins_in_it = low <= r.low && r.low <= high;
        if (begins_in_it && high < r.high) r.low = high + 1;
        return begins_in_it && high >= r.high;
    });
}

void PeerTable::add(Peer& peer, const std::shared_ptr<const SharedBooking>& booking, bool prefilled,
                    Nanos at) {
    if (peer.bookings.size() >= options_.max_bookings) {
        ++counters_.refused;
        peer.full = true;
        return;
    }
    const auto [entry, is_new] = peer.bookings.try_emplace(booking->number);
    if (!is_new) return;
    Booking& b = entry->second;
    b.prefilled = prefilled;
    b.at = at;
    b.local = router_.add_peers(*booking, prefilled, at);
    if (b.local.value == 0) b.waits = booking;
}

void PeerTable::set_prefilled(Booking& booking, std::uint32_t cached_tokens, bool learn, Nanos at) {
    if (booking.prefilled) return;
    booking.prefilled = true;
    router_.on_peers_first_token(booking.local, cached_tokens, learn, at);
}

void PeerTable::end(Booking& booking, Nanos at) { router_.on_end(booking.local, at); }

void PeerTable::end_all(Peer& peer, Nanos now) {
    for (auto& [number, booking] : peer.bookings) end(booking, now);
    counters_.bookings_lost += peer.bookings.size();
    ++counters_.peers_gone;
}

void PeerTable::asks(Nanos now, std::vector<Ask>& out) {
    for (auto& [id, peer] : peers_) {
        if ((peer.missing.empty() && peer.doubtful.empty()) || now < peer.ask_at) continue;
        Ask ask;
        ask.of = id;
        for (const std::uint64_t s : peer.missing) {
            if (ask.deltas.size() == kMostAsked) break;
            ask.deltas.push_back(s);
        }
        const std::size_t n = std::min(peer.doubtful.size(), kMostAsked);
        ask.ranges.assign(peer.doubtful.begin(),
                          peer.doubtful.begin() + static_cast<std::ptrdiff_t>(n));
        peer.ask_wait = std::clamp(2 * peer.ask_wait, options_.ask_again, options_.ask_again_most);
        peer.ask_at = now + peer.ask_wait;
        out.push_back(std::move(ask));
    }
}

void PeerTable::expire(Nanos now) {
    for (auto it = peers_.begin(); it != peers_.end();) {
        if (now - it->second.heard_at <= options_.gone_after) {
            ++it;
            continue;
        }
        end_all(it->second, now);
        it = peers_.erase(it);
    }
}

void PeerTable::drop(ReplicaId peer, Nanos now) {
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return;
    end_all(found->second, now);
    peers_.erase(found);
}

void PeerTable::ranks_changed() {
    for (auto& [id, peer] : peers_) {
        for (auto& [number, b] : peer.bookings) {
            if (!b.waits) continue;
            b.local = router_.add_peers(*b.waits, b.prefilled, b.at);
            if (b.local.value != 0) b.waits.reset();
        }
    }
}

std::vector<PeerTable::PeerState> PeerTable::peers() const {
    std::vector<PeerState> out;
    for (const auto& [id, peer] : peers_) {
        PeerState& s = out.emplace_back();
        s.id = id;
        s.bookings = peer.bookings.size();
        s.placeless = static_cast<std::size_t>(std::ranges::count_if(
            peer.bookings, [](const auto& entry) { return entry.second.waits != nullptr; }));
        s.sequence = peer.sequence;
        s.missing = peer.missing.size();
        s.in_step = peer.in_step;
        s.heard_at = peer.heard_at;
    }
    return out;
}

std::vector<PeerTable::Known> PeerTable::known(ReplicaId peer) const {
    std::vector<Known> out;
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return out;
    for (const auto& [number, b] : found->second.bookings) out.push_back({number, b.prefilled});
    return out;
}

}  // namespace stator::replicas
