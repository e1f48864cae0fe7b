#include "stator/engine/kv_feed/engine_follower.h"

#include <utility>

namespace stator::engine {

using protocol::KvEvent;

EngineFollower::EngineFollower(KvFeedOptions feed, EngineFollowerOptions options, TimePoint now)
    : options_(options), feed_(std::move(feed)), heard_(now) {}

EngineFollower::Wish EngineFollower::start(TimePoint now, std::vector<KvEvent>& out) {
    let_go();
    forget(out);
    return begin(now, out);
}

/// From the engine's first number on, with nothing known.
EngineFollower::Wish EngineFollower::begin(TimePoint now, std::vector<KvEvent>& out) {
    next_ = 0;
    last_time_ = 0;
    tries_ = 0;
    incomplete_ = false;
    state_ = State::kSyncing;
    if (options_.has_replay) return ask(0, now);
    return settle(now, out);
}

EngineFollower::Wish EngineFollower::ask(std::uint64_t from, TimePoint now) {
    asked_ = from;
    replayed_any_ = false;
    heard_ = now;
    ++tries_;
    return from;
}

EngineFollower::Wish EngineFollower::on_message(std::uint64_t number, std::string_view payload,
                                                TimePoint now, std::vector<KvEvent>& out) {
    ++stats_.messages;
    if (number < next_) {
        const bool readable = read_engine_batch(payload, batch_).has_value();
        if (!readable || batch_.time <= last_time_) {
            ++stats_.repeated;
            return {};
        }
        ++stats_.restarts;
        let_go();
        forget(out);
        hold(number, payload);
        return begin(now, out);
    }
    if (state_ == State::kLive && number == next_) {
        apply(number, payload, out);
        return {};
    }
    hold(number, payload);
    if (state_ != State::kLive) return {};
    if (next_ > 0 || stats_.restarts > 0) ++stats_.gaps;
    state_ = State::kGap;
    tries_ = 0;
    if (options_.has_replay) return ask(next_, now);
    return settle(now, out);
}

void EngineFollower::on_replayed(std::uint64_t number, std::string_view payload, TimePoint now,
                                 std::vector<KvEvent>& out) {
    if (state_ == State::kLive) return;
    heard_ = now;
    if (number < next_) {
        ++stats_.repeated;
        return;
    }
    if (number > next_) {
        // Older than what the engine keeps.
        if (state_ == State::kGap || next_ > 0) forget(out);
        incomplete_ = true;
        ++stats_.lost_history;
    }
    replayed_any_ = true;
    apply(number, payload, out);
}

EngineFollower::Wish EngineFollower::on_replay_end(TimePoint now, std::vector<KvEvent>& out) {
    if (state_ == State::kLive) return {};
    return settle(now, out);
}

/// The replay has brought what it can: what was held follows, unless a hole is left.
EngineFollower::Wish EngineFollower::settle(TimePoint now, std::vector<KvEvent>& out) {
    while (!held_.empty()) {
        const auto first = held_.begin();
        if (first->first > next_) {
            if (options_.has_replay && tries_ < options_.replay_tries) {
                state_ = next_ == 0 ? State::kSyncing : State::kGap;
                return ask(next_, now);
            }
            // Nobody has it any more.
            if (next_ > 0) forget(out);
            incomplete_ = true;
            ++stats_.lost_history;
        }
        auto node = held_.extract(first);
        held_bytes_ -= node.mapped().size();
        if (node.key() >= next_) apply(node.key(), node.mapped(), out);
    }
    state_ = State::kLive;
    tries_ = 0;
    return {};
}

EngineFollower::Wish EngineFollower::on_time(TimePoint now, std::vector<KvEvent>& out) {
    if (state_ == State::kLive || now - heard_ < options_.replay_silence) return {};
    if (options_.has_replay && tries_ < options_.replay_tries) return ask(next_, now);
    if (next_ == 0) incomplete_ = true;
    return settle(now, out);
}

void EngineFollower::was_reset(std::vector<KvEvent>& out) { forget(out); }

void EngineFollower::hold(std::uint64_t number, std::string_view payload) {
    if (held_.size() >= options_.held_messages ||
        held_bytes_ + payload.size() > options_.held_bytes) {
        let_go();
    }
    const auto [at, is_new] = held_.emplace(number, payload);
    if (is_new) held_bytes_ += payload.size();
}

void EngineFollower::let_go() {
    held_.clear();
    held_bytes_ = 0;
}

void EngineFollower::apply(std::uint64_t number, std::string_view payload,
                           std::vector<KvEvent>& out) {
    const std::size_t from = out.size();
    next_ = number + 1;
    if (read_engine_batch(payload, batch_)) {
        last_time_ = batch_.time;
        for (const EngineKvEvent& event : batch_.events()) feed_.apply(event, out);
    } else {
        // What it said of removals is not known.
        ++stats_.unreadable;
        feed_.clear(out);
        incomplete_ = true;
    }
    this->number(out, from);
}

void EngineFollower::forget(std::vector<KvEvent>& out) {
    const std::size_t from = out.size();
    feed_.clear(out);
    number(out, from);
}

void EngineFollower::number(std::vector<KvEvent>& out, std::size_t from) {
    for (std::size_t i = from; i < out.size(); ++i) out[i].seq = protocol::EventSeq(++last_event_);
}

}  // namespace stator::engine
