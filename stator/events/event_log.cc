#include "stator/events/event_log.h"

#include <algorithm>
#include <variant>

#include "stator/events/kv_batch.h"

namespace stator::events {
namespace {

using protocol::KvEvent;
using protocol::KvRemoved;
using protocol::KvStored;

constexpr std::size_t kEventOverhead = 80;

/// No less than what the event takes in a batch.
std::size_t encoded_bound(const KvEvent& event) {
    if (const auto* stored = std::get_if<KvStored>(&event.what)) {
        return kEventOverhead + stored->blocks.size() * 16;
    }
    if (const auto* removed = std::get_if<KvRemoved>(&event.what)) {
        return kEventOverhead + removed->sequences.size() * 8;
    }
    return kEventOverhead;
}

}  // namespace

EventLog::EventLog(protocol::Incarnation incarnation, std::uint32_t ranks, Options options)
    : incarnation_(incarnation), options_(options), kv_(ranks) {}

void EventLog::emit(std::string_view topic, std::uint32_t rank, Stream& stream,
                    std::string_view payload, TimePoint now, Out& out) {
    auto bytes = std::make_shared<std::string>();
    append_message(*bytes, {topic, incarnation_, rank, ++stream.last, false, payload});
    stream.sent = now;
    stream.ring_bytes += bytes->size();
    stream.ring.push_back(bytes);
    while (stream.ring.size() > options_.ring_batches || stream.ring_bytes > options_.ring_bytes) {
        stream.ring_bytes -= stream.ring.front()->size();
        stream.ring.pop_front();
        if (stream.ring.empty()) break;
    }
    out.push_back(std::move(bytes));
}

void EventLog::append_part(std::uint32_t rank, std::span<const KvEvent> events, TimePoint now,
                           Out& out) {
    if (events.empty()) return;
    Stream& stream = kv_[rank];
    for (const KvEvent& event : events) stream.state.apply(event);
    payload_.clear();
    append_kv_batch(payload_, events);
    emit(kTopicKv, rank, stream, payload_, now, out);
}

/// One event over the budget, as several with its number: a chain goes on below its last block.
void EventLog::append_large(std::uint32_t rank, const KvEvent& event, TimePoint now, Out& out) {
    const std::size_t per_part = std::max<std::size_t>(1, options_.batch_bytes / 16);
    if (const auto* stored = std::get_if<KvStored>(&event.what)) {
        auto parent = stored->parent;
        for (std::size_t at = 0; at < stored->blocks.size(); at += per_part) {
            const std::size_t end = std::min(stored->blocks.size(), at + per_part);
            const auto begin = stored->blocks.begin();
            const KvEvent part{event.seq, KvStored{parent,
                                                   {begin + static_cast<std::ptrdiff_t>(at),
                                                    begin + static_cast<std::ptrdiff_t>(end)},
                                                   stored->tier,
                                                   stored->group}};
            append_part(rank, {&part, 1}, now, out);
            parent = stored->blocks[end - 1].sequence;
        }
    } else if (const auto* removed = std::get_if<KvRemoved>(&event.what)) {
        for (std::size_t at = 0; at < removed->sequences.size(); at += per_part) {
            const std::size_t end = std::min(removed->sequences.size(), at + per_part);
            const auto begin = removed->sequences.begin();
            const KvEvent part{event.seq, KvRemoved{{begin + static_cast<std::ptrdiff_t>(at),
                                                     begin + static_cast<std::ptrdiff_t>(end)},
                                                    removed->tier,
                                                    removed->group}};
            append_part(rank, {&part, 1}, now, out);
        }
    }
}

Result<void> EventLog::append_kv(std::uint32_t rank, std::span<const KvEvent> events, TimePoint now,
                                 Out& out) {
    if (rank >= kv_.size()) {
        return error(ErrorCode::kInvalidArgument, "this publisher has {} ranks, not rank {}",
                     kv_.size(), rank);
    }
    std::size_t begin = 0;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < events.size(); ++i) {
        const std::size_t more = encoded_bound(events[i]);
        if (bytes + more > options_.batch_bytes) {
            append_part(rank, events.subspan(begin, i - begin), now, out);
            begin = i;
            bytes = 0;
        }
        if (more > options_.batch_bytes + kEventOverhead) {
            append_large(rank, events[i], now, out);
            begin = i + 1;
        } else {
            bytes += more;
        }
    }
    append_part(rank, events.subspan(begin), now, out);
    return {};
}

Result<void> EventLog::append(std::string_view topic, std::uint32_t rank, std::string_view payload,
                              TimePoint now, Out& out) {
    if (!is_topic(topic) || topic == kTopicKv || rank >= kv_.size() ||
        payload.size() > kMaxMessageBytes - kMaxTopicBytes - 1 - kMessageHeaderBytes) {
        return error(ErrorCode::kInvalidArgument,
                     "a message of {} bytes on topic {} and rank {} can't be published: topics are "
                     "1 to {} of [a-z0-9_-] and not kv, ranks are below {}, payloads below 16 MiB",
                     payload.size(), is_topic(topic) ? topic : "?", rank, kMaxTopicBytes,
                     kv_.size());
    }
    const std::pair key(std::string(topic), rank);
    if (!others_.contains(key) && others_.size() >= kMaxStreams) {
        return error(ErrorCode::kExhausted, "a publisher has at most {} topics times ranks",
                     kMaxStreams);
    }
    emit(topic, rank, others_[key], payload, now, out);
    return {};
}

void EventLog::beat(std::string_view topic, std::uint32_t rank, Stream& stream, TimePoint now,
                    bool at_once, Out& out) const {
    if (!at_once && now - stream.sent < options_.heartbeat) return;
    auto bytes = std::make_shared<std::string>();
    append_message(*bytes, {topic, incarnation_, rank, stream.last, true, {}});
    stream.sent = now;
    out.push_back(std::move(bytes));
}

void EventLog::heartbeats(TimePoint now, bool at_once, Out& out) {
    for (std::uint32_t rank = 0; rank < kv_.size(); ++rank) {
        beat(kTopicKv, rank, kv_[rank], now, at_once, out);
    }
    for (auto& [key, stream] : others_) beat(key.first, key.second, stream, now, at_once, out);
}

const EventLog::Stream* EventLog::find(std::string_view topic, std::uint32_t rank) const {
    if (topic == kTopicKv) return rank < kv_.size() ? &kv_[rank] : nullptr;
    const auto found = others_.find(std::pair(std::string(topic), rank));
    return found == others_.end() ? nullptr : &found->second;
}

std::uint64_t EventLog::last_sequence(std::string_view topic, std::uint32_t rank) const {
    const Stream* stream = find(topic, rank);
    return stream == nullptr ? 0 : stream->last;
}

Result<EventLog::Bytes> EventLog::snapshot(std::string_view topic, std::uint32_t rank) const {
    const Stream* stream = find(topic, rank);
    if (stream == nullptr) {
        return error(ErrorCode::kNotFound, "nothing was published on topic {} and rank {}", topic,
                     rank);
    }
    std::string state;
    if (topic == kTopicKv) {
        stream->state.append_state(state);
    } else if (!stream->ring.empty()) {
        state = parse_message(*stream->ring.back())->payload;
    }
    auto out = std::make_shared<std::string>();
    append_snapshot(*out, {topic, incarnation_, rank, stream->last, state});
    return out;
}

Result<EventLog::Bytes> EventLog::range(std::string_view topic, std::uint32_t rank,
                                        std::uint64_t from, std::uint64_t to) const {
    const Stream* stream = find(topic, rank);
    const std::uint64_t last = stream == nullptr ? 0 : stream->last;
    const std::uint64_t held = stream == nullptr ? 0 : stream->ring.size();
    if (from == 0 || from > to || to > last || last - from >= held) {
        return error(ErrorCode::kNotFound,
                     "topic {}, rank {}: messages {} to {} are wanted, {} to {} are kept", topic,
                     rank, from, to, last - held + 1, last);
    }
    Range range{topic, incarnation_, rank, from, {}};
    for (std::uint64_t s = from; s <= to; ++s) {
        const Bytes& message = stream->ring[stream->ring.size() - 1 - (last - s)];
        range.payloads.push_back(parse_message(*message)->payload);
    }
    auto out = std::make_shared<std::string>();
    append_range(*out, range);
    return out;
}

}  // namespace stator::events
