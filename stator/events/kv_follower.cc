#include "stator/events/kv_follower.h"

#include <algorithm>
#include <variant>

#include "stator/base/log.h"

namespace stator::events {
namespace {

constexpr std::size_t kRetired = 8;

}  // namespace

std::string_view to_string(FollowState state) {
    switch (state) {
        case FollowState::kSyncing:
            return "syncing";
        case FollowState::kLive:
            return "live";
        case FollowState::kGap:
            return "gap";
    }
    return "unknown";
}

KvFollower::KvFollower(protocol::Incarnation incarnation, std::uint32_t ranks,
                       FollowerOptions options, KvReceiver& receiver, TimePoint now)
    : incarnation_(incarnation), options_(options), receiver_(receiver), ranks_(ranks) {
    for (Rank& r : ranks_) r.last_heard = now;
}

void KvFollower::on_message(std::string_view bytes, TimePoint now, Out& out) {
    const auto m = parse_message(bytes);
    if (!m || m->topic != kTopicKv || m->rank >= ranks_.size()) {
        ++stats_.rejected;
        return;
    }
    if (!take_incarnation(*m)) return;
    Rank& r = ranks_[m->rank];
    r.last_heard = now;
    r.heard = true;
    r.seen = std::max(r.seen, m->sequence);
    if (m->heartbeat) {
        on_heartbeat(m->rank, now);
    } else {
        on_batch(*m, now);
    }
    if (r.silent) {
        r.silent = false;
        if (r.state == FollowState::kLive) tell(m->rank, true);
    }
    if (r.state != FollowState::kLive) want(m->rank, now, out);
}

/// False for messages of a former life that come late.
bool KvFollower::take_incarnation(const Message& m) {
    if (m.incarnation == incarnation_) return true;
    if (std::ranges::find(retired_, m.incarnation) != retired_.end()) {
        ++stats_.duplicates;
        return false;
    }
    adopt(m.incarnation);
    return true;
}

void KvFollower::adopt(protocol::Incarnation incarnation) {
    retired_.push_back(incarnation_);
    if (retired_.size() > kRetired) retired_.pop_front();
    incarnation_ = incarnation;
    log_info("A publisher has a new incarnation; its KV state is read again.",
             {{"incarnation", incarnation.value}});
    for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
        Rank& r = ranks_[rank];
        to_syncing(rank);
        r.held.clear();
        r.held_bytes = 0;
        r.seen = 0;
        r.applied = 0;
        r.heard = false;
        r.snapshots = {};
        receiver_.reset(rank);
    }
}

void KvFollower::on_heartbeat(std::uint32_t rank, TimePoint now) {
    Rank& r = ranks_[rank];
    // Before the first message the state is known: nothing.
    if (r.state == FollowState::kSyncing && r.seen == 0) {
        receiver_.reset(rank);
        r.applied = 0;
        r.state = FollowState::kGap;  // settle() decides
    }
    settle(rank, now);
}

void KvFollower::on_batch(const Message& m, TimePoint now) {
    Rank& r = ranks_[m.rank];
    if (r.state == FollowState::kSyncing) {
        if (m.sequence != 1 || r.fetch.ticket != 0) return hold(r, m);
        receiver_.reset(m.rank);
        r.applied = 0;
        r.state = FollowState::kGap;
    }
    if (m.sequence <= r.applied) {
        ++stats_.duplicates;
        return;
    }
    if (m.sequence != r.applied + 1) {
        hold(r, m);
    } else if (!apply_next(m.rank, m.payload, now)) {
        return;
    }
    // The common case must not pay for looking whether anything is held.
    if (r.state == FollowState::kLive && r.applied == r.seen) return;
    settle(m.rank, now);
}

/// Full: the message is dropped, and fetched once it is its turn.
void KvFollower::hold(Rank& r, const Message& m) {
    if (r.held.size() >= options_.held_messages ||
        r.held_bytes + m.payload.size() > options_.held_bytes) {
        return;
    }
    if (r.held.emplace(m.sequence, m.payload).second) {
        r.held_bytes += m.payload.size();
    } else {
        ++stats_.duplicates;
    }
}

bool KvFollower::apply_events(std::uint32_t rank, std::string_view payload, bool count) {
    KvBatchReader batch(payload, scratch_);
    std::uint64_t blocks = 0;
    for (;;) {
        const auto event = batch.next();
        if (!event) return false;
        if (*event == nullptr) break;
        if (const auto* stored = std::get_if<protocol::KvStored>(&(*event)->what)) {
            blocks += stored->blocks.size();
        } else if (const auto* removed = std::get_if<protocol::KvRemoved>(&(*event)->what)) {
            blocks += removed->sequences.size();
        }
        receiver_.apply(rank, **event);
    }
    if (count) stats_.block_events += blocks;
    return true;
}

/// The batch that is next. False: it can't be read, and the rank syncs anew.
bool KvFollower::apply_next(std::uint32_t rank, std::string_view payload, TimePoint now) {
    Rank& r = ranks_[rank];
    if (apply_events(rank, payload, true)) {
        ++r.applied;
        ++stats_.batches;
        return true;
    }
    ++stats_.rejected;
    log_warn("A KV batch can't be read; the rank's state is fetched.",
             {{"incarnation", incarnation_.value}, {"rank", rank}, {"sequence", r.applied + 1}});
    // A publisher that does this always must not be asked for a snapshot each time.
    r.snapshots.wait =
        std::clamp(r.snapshots.wait * 2, options_.first_back_off, options_.last_back_off);
    r.snapshots.next = std::max(r.snapshots.next, now + r.snapshots.wait);
    to_syncing(rank);
    return false;
}

/// After anything changed for a rank whose state is known as of `applied`: applies what is held
/// and next, and is live if that is all there is, else in a gap.
void KvFollower::settle(std::uint32_t rank, TimePoint now) {
    Rank& r = ranks_[rank];
    if (r.state == FollowState::kSyncing) return;
    while (!r.held.empty() && r.held.begin()->first <= r.applied + 1) {
        const auto node = r.held.extract(r.held.begin());
        r.held_bytes -= node.mapped().size();
        if (node.key() <= r.applied) {
            ++stats_.duplicates;
        } else if (!apply_next(rank, node.mapped(), now)) {
            return;
        }
    }
    if (r.applied >= r.seen) {
        if (r.state != FollowState::kLive) r.live_since = now;
        r.state = FollowState::kLive;
        r.fetch.ticket = 0;
        r.ranges = {};
        tell(rank, true);
    } else if (r.state == FollowState::kLive) {
        r.state = FollowState::kGap;
        ++stats_.gaps;
        tell(rank, false);
    }
}

void KvFollower::to_syncing(std::uint32_t rank) {
    Rank& r = ranks_[rank];
    r.state = FollowState::kSyncing;
    r.fetch.ticket = 0;
    tell(rank, false);
}

void KvFollower::tell(std::uint32_t rank, bool is_live) {
    Rank& r = ranks_[rank];
    if (r.told_live == is_live) return;
    r.told_live = is_live;
    receiver_.live(rank, is_live, r.applied);
}

/// Asks for what is missing, unless it was asked for or must wait.
void KvFollower::want(std::uint32_t rank, TimePoint now, Out& out) {
    Rank& r = ranks_[rank];
    if (r.state == FollowState::kLive || r.fetch.ticket != 0 || !r.heard) return;
    const bool snapshot = r.state == FollowState::kSyncing;
    BackOff& back_off = snapshot ? r.snapshots : r.ranges;
    if (now < back_off.next) return;
    if (snapshot && r.live_since.ns != 0 && now - r.live_since > options_.last_back_off) {
        back_off.wait = {};
    }
    back_off.wait = std::clamp(back_off.wait * 2, options_.first_back_off, options_.last_back_off);
    back_off.next = now + back_off.wait;
    r.fetch = {++tickets_, snapshot, rank, 0, 0};
    if (!snapshot) {
        r.fetch.from = r.applied + 1;
        r.fetch.to = r.held.empty() ? r.seen : r.held.begin()->first - 1;
    }
    r.fetch_ends = now + options_.fetch_timeout;
    out.push_back(r.fetch);
}

void KvFollower::on_answer(std::uint64_t ticket, const Result<std::string>& answer, TimePoint now,
                           Out& out) {
    const auto found = std::ranges::find_if(
        ranks_, [&](const Rank& r) { return ticket != 0 && r.fetch.ticket == ticket; });
    if (found == ranks_.end()) return;  // no longer wanted
    const auto rank = static_cast<std::uint32_t>(found - ranks_.begin());
    found->fetch.ticket = 0;
    Result<void> taken;
    if (!answer) {
        taken = tl::unexpected(answer.error());
    } else if (found->fetch.snapshot) {
        taken = take_snapshot(rank, *answer, now);
    } else {
        taken = take_range(rank, *answer, now);
    }
    if (!taken) failed(rank, taken.error());
    want(rank, now, out);
}

Result<void> KvFollower::take_snapshot(std::uint32_t rank, std::string_view bytes, TimePoint now) {
    const auto s = parse_snapshot(bytes);
    if (!s) return tl::unexpected(s.error());
    if (s->topic != kTopicKv || s->rank != rank ||
        std::ranges::find(retired_, s->incarnation) != retired_.end()) {
        return error(ErrorCode::kAborted, "the snapshot is of {}, rank {}, incarnation {}",
                     s->topic, s->rank, s->incarnation.value);
    }
    if (s->incarnation != incarnation_) adopt(s->incarnation);
    Rank& r = ranks_[rank];
    receiver_.reset(rank);
    if (!apply_events(rank, s->state, false)) {
        return error(ErrorCode::kInvalidArgument, "the snapshot's state can't be read");
    }
    ++stats_.snapshots;
    r.heard = true;
    r.applied = s->sequence;
    r.seen = std::max(r.seen, s->sequence);
    r.state = FollowState::kGap;
    settle(rank, now);
    return {};
}

Result<void> KvFollower::take_range(std::uint32_t rank, std::string_view bytes, TimePoint now) {
    const auto range = parse_range(bytes);
    if (!range) return tl::unexpected(range.error());
    Rank& r = ranks_[rank];
    const std::uint64_t before = r.applied;
    if (range->topic != kTopicKv || range->rank != rank || range->incarnation != incarnation_ ||
        range->from > r.applied + 1 || range->payloads.empty()) {
        return error(ErrorCode::kAborted, "the range is of {}, rank {}, incarnation {}, from {}",
                     range->topic, range->rank, range->incarnation.value, range->from);
    }
    std::uint64_t sequence = range->from;
    for (const std::string_view payload : range->payloads) {
        if (sequence++ <= r.applied) continue;
        if (!apply_next(rank, payload, now)) return {};
    }
    ++stats_.ranges;
    r.seen = std::max(r.seen, r.applied);
    if (r.applied == before && r.applied < r.seen && r.held.empty()) {
        return error(ErrorCode::kAborted, "the range brought nothing new");
    }
    settle(rank, now);
    return {};
}

/// A range that can't be had means a snapshot; a snapshot that can't be had is asked for later.
void KvFollower::failed(std::uint32_t rank, const Error& why) {
    log_debug("A fetch of KV events failed.", {{"incarnation", incarnation_.value},
                                               {"rank", rank},
                                               {"code", to_string(why.code)},
                                               {"why", why.message}});
    to_syncing(rank);
}

void KvFollower::on_time(TimePoint now, Out& out) {
    for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
        Rank& r = ranks_[rank];
        if (r.fetch.ticket != 0 && now >= r.fetch_ends) {
            r.fetch.ticket = 0;
            to_syncing(rank);
        }
        want(rank, now, out);
        if (r.silent || now - r.last_heard < options_.silent_after) continue;
        r.silent = true;
        r.told_live = true;  // said even if it was never live
        tell(rank, false);
    }
}

}  // namespace stator::events
