#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/worker_info.h"

namespace stator::events {

/// What travels on the event plane, byte for byte; docs/event-plane.md is the specification. A
/// message is one ZeroMQ frame, numbers little-endian:
///
///   topic, 1 to 32 of [a-z0-9_-]; then one byte 0, so that "kv" + 0 is a subscription's prefix
///   0   1  version, 1
///   1   1  flags: bit 0 heartbeat; bits 4 to 7 critical: a reader refuses those it does not know
///   2   2  0; not looked at
///   4   4  rank
///   8   8  incarnation
///   16  8  sequence
///   24     payload, MessagePack; empty in a heartbeat
constexpr std::uint8_t kMessageVersion = 1;
constexpr std::size_t kMessageHeaderBytes = 24;
constexpr std::size_t kMaxTopicBytes = 32;
/// What a publisher may send in one message; a subscriber hangs up on more. KV batches are cut to
/// about kBatchBytes.
constexpr std::size_t kMaxMessageBytes = std::size_t{16} * 1024 * 1024;
constexpr std::size_t kBatchBytes = std::size_t{128} * 1024;

constexpr std::string_view kTopicKv = "kv";
constexpr std::string_view kTopicLoad = "load";
constexpr std::string_view kTopicLifecycle = "lifecycle";

/// A message as it came, checked and decoded as far as its envelope. A view.
struct Message {
    std::string_view topic;
    protocol::Incarnation incarnation;
    std::uint32_t rank = 0;
    std::uint64_t sequence = 0;  ///< of a heartbeat: the last one published, 0 = none yet
    bool heartbeat = false;
    std::string_view payload;  ///< MessagePack
};

[[nodiscard]] bool is_topic(std::string_view text);

/// STATOR_CHECK: the topic is one.
void append_message(std::string& out, const Message& message);
/// kInvalidArgument says what is wrong. The payload is not looked at.
[[nodiscard]] Result<Message> parse_message(std::string_view bytes);

/// Answer to a fetch: everything of one topic and rank as of `sequence`.
struct Snapshot {
    std::string_view topic;
    protocol::Incarnation incarnation;
    std::uint32_t rank = 0;
    std::uint64_t sequence = 0;
    std::string_view state;  ///< kv: a payload like a batch's; other topics: the last payload
};
void append_snapshot(std::string& out, const Snapshot& snapshot);
[[nodiscard]] Result<Snapshot> parse_snapshot(std::string_view bytes);

/// Answer to a fetch: the payloads of messages `from`, `from` + 1, …
struct Range {
    std::string_view topic;
    protocol::Incarnation incarnation;
    std::uint32_t rank = 0;
    std::uint64_t from = 0;
    std::vector<std::string_view> payloads;
};
void append_range(std::string& out, const Range& range);
[[nodiscard]] Result<Range> parse_range(std::string_view bytes);

}  // namespace stator::events
