#include "stator/sim/replicas.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"

namespace stator::sim {
namespace {

using replicas::Message;
using replicas::ReplicaId;
using router::BookingId;

constexpr unsigned kReplicaShift = 60;
constexpr std::uint64_t kLocal = (std::uint64_t{1} << kReplicaShift) - 1;
/// As the live plane's.
constexpr std::chrono::milliseconds kFlushAfter{2};
constexpr std::chrono::milliseconds kDigestEvery{500};

std::uint32_t replica_of(BookingId id) {
    return static_cast<std::uint32_t>(id.value >> kReplicaShift);
}
BookingId local(BookingId id) { return BookingId(id.value & kLocal); }

std::uint64_t mix(std::uint64_t h) {
    h = (h ^ (h >> 30U)) * 0xbf58476d1ce4e5b9U;
    h = (h ^ (h >> 27U)) * 0x94d049bb133111ebU;
    return h ^ (h >> 31U);
}

}  // namespace

Replicas::Replicas(const ReplicaOptions& options, const router::PolicyOptions& policy,
                   std::uint64_t seed)
    : options_(options), seed_(seed), random_(seed + 99) {
    static_assert(kMostReplicas <= (std::uint64_t{1} << (64 - kReplicaShift)));
    STATOR_CHECK(options.replicas >= 1 && options.replicas <= kMostReplicas, "so many replicas");
    const bool share = options.share && options.replicas > 1;
    for (std::uint32_t i = 0; i < options.replicas; ++i) {
        replicas_.push_back(std::make_unique<Replica>(policy, seed + 1000 * i));
        if (!share) continue;
        replicas_.back()->router.set_sink(&replicas_.back()->journal);
        // Not all at the same moment.
        due_.add(kDigestEvery * (i + 1) / options.replicas, {Due::Kind::kTick, i, 0, nullptr});
    }
    options_.share = share;
}

void Replicas::on_report(router::RankIndex rank, const protocol::LoadReport& load,
                         const Seen& seen) {
    for (std::size_t i = 0; i < replicas_.size(); ++i) {
        replicas_[i]->router.on_report(rank, load, BookingId(seen[i]));
    }
}

void Replicas::ranks_changed() {
    for (auto& replica : replicas_) replica->peers.ranks_changed();
}

Result<router::Decision> Replicas::book(std::uint64_t index, const router::RouteRequest& request,
                                        Nanos now) {
    const auto at =
        replicas_.size() == 1
            ? 0
            : static_cast<std::uint32_t>(mix(index + 1 + (seed_ << 32U)) % replicas_.size());
    auto decision = replicas_[at]->router.book(request, now);
    if (decision && decision->booking.value != 0) {
        STATOR_ASSERT(decision->booking.value <= kLocal);
        decision->booking.value |= std::uint64_t{at} << kReplicaShift;
    }
    flush_soon(at, now);
    return decision;
}

void Replicas::on_first_token(BookingId booking, std::uint32_t cached_tokens, Nanos now) {
    replicas_[replica_of(booking)]->router.on_first_token(local(booking), cached_tokens, now);
    flush_soon(replica_of(booking), now);
}

void Replicas::on_handed_over(BookingId booking, Nanos now) {
    replicas_[replica_of(booking)]->router.on_handed_over(local(booking), now);
}

void Replicas::on_end(BookingId booking, Nanos now) {
    replicas_[replica_of(booking)]->router.on_end(local(booking), now);
    flush_soon(replica_of(booking), now);
}

void Replicas::note_seen(Seen& seen, BookingId booking) {
    std::uint64_t& last = seen[replica_of(booking)];
    last = std::max(last, local(booking).value);
}

void Replicas::flush_soon(std::uint32_t replica, Nanos now) {
    Replica& r = *replicas_[replica];
    if (!options_.share || r.flushes || !r.journal.pending()) return;
    r.flushes = true;
    due_.add(now + kFlushAfter, {Due::Kind::kFlush, replica, 0, nullptr});
}

std::optional<Replicas::Nanos> Replicas::next() const {
    if (due_.empty()) return std::nullopt;
    return due_.next_time();
}

void Replicas::run(Nanos now) {
    while (!due_.empty() && due_.next_time() <= now) {
        const Due due = due_.take();
        if (due.kind == Due::Kind::kMessage) {
            deliver(due, now);
            continue;
        }
        Replica& r = *replicas_[due.replica];
        std::vector<Message> out;
        if (due.kind == Due::Kind::kFlush) {
            r.flushes = false;
            r.journal.flush(out);
        } else {
            r.peers.expire(now);
            r.journal.digest(now, out);
            ask(due.replica, out, now);
            due_.add(now + kDigestEvery, {Due::Kind::kTick, due.replica, 0, nullptr});
        }
        send(due.replica, out, now);
    }
}

void Replicas::send(std::uint32_t from, std::vector<Message>& messages, Nanos now) {
    for (Message& m : messages) {
        const auto message = std::make_shared<const Message>(std::move(m));
        for (std::uint32_t to = 0; to < replicas_.size(); ++to) {
            if (to == from) continue;
            const double drawn = static_cast<double>(random_() >> 11U) * 0x1p-53;
            if (drawn < options_.message_loss) continue;
            due_.add(now + options_.message_delay, {Due::Kind::kMessage, to, from, message});
        }
    }
}

void Replicas::deliver(const Due& due, Nanos now) {
    Replica& r = *replicas_[due.replica];
    std::vector<Message> out;
    const auto* question = std::get_if<replicas::Ask>(due.message.get());
    if (question != nullptr && question->of.value == due.replica + 1) {
        r.journal.answer(*question, out);
    } else {
        r.peers.take(ReplicaId(due.from + 1), *due.message, now);
        ask(due.replica, out, now);
    }
    if (!out.empty()) send(due.replica, out, now);
}

void Replicas::ask(std::uint32_t replica, std::vector<Message>& out, Nanos now) {
    std::vector<replicas::Ask> asks;
    replicas_[replica]->peers.asks(now, asks);
    for (replicas::Ask& a : asks) out.emplace_back(std::move(a));
}

replicas::PeerCounters Replicas::counters() const {
    replicas::PeerCounters sum;
    for (const auto& r : replicas_) {
        const replicas::PeerCounters& c = r->peers.counters();
        sum.deltas += c.deltas;
        sum.duplicates += c.duplicates;
        sum.missed += c.missed;
        sum.repaired += c.repaired;
        sum.mismatches += c.mismatches;
        sum.refused += c.refused;
    }
    return sum;
}

}  // namespace stator::sim
