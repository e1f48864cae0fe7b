#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/events/kv_mirror.h"
#include "stator/events/message.h"
#include "stator/protocol/kv_event.h"

namespace stator::events {

/// The publisher's half of the protocol without its sockets: gives messages their sequence numbers,
/// keeps the last ones for ranges, mirrors the KV state for snapshots, and says when a heartbeat is
/// due. Messages to send are appended to `out`, in order. One thread at a time.
class EventLog {
  public:
    struct Options {
        std::chrono::milliseconds heartbeat{1'000};
        /// Kept for ranges, per topic and rank; the oldest go first.
        std::size_t ring_batches = 4096;
        std::size_t ring_bytes = std::size_t{16} * 1024 * 1024;
        std::size_t batch_bytes = kBatchBytes;  ///< larger batches become several messages
    };
    using Bytes = std::shared_ptr<const std::string>;
    using Out = std::vector<Bytes>;
    static constexpr std::size_t kMaxStreams = 256;  ///< of other topics, each per rank

    EventLog(protocol::Incarnation incarnation, std::uint32_t ranks, Options options);

    /// kInvalidArgument where the rank is none.
    [[nodiscard]] Result<void> append_kv(std::uint32_t rank,
                                         std::span<const protocol::KvEvent> events, TimePoint now,
                                         Out& out);
    /// Another topic. kInvalidArgument: no topic's name, "kv", no such rank, a payload over
    /// kMaxMessageBytes; kExhausted: more than kMaxStreams.
    [[nodiscard]] Result<void> append(std::string_view topic, std::uint32_t rank,
                                      std::string_view payload, TimePoint now, Out& out);
    /// Heartbeats of all streams that were silent for as long as the options say; `at_once`: of
    /// all, for a subscriber that has just come.
    void heartbeats(TimePoint now, bool at_once, Out& out);

    /// As of the last message appended. kNotFound where the stream is none.
    [[nodiscard]] Result<Bytes> snapshot(std::string_view topic, std::uint32_t rank) const;
    /// kNotFound where the ring does not hold all of it.
    [[nodiscard]] Result<Bytes> range(std::string_view topic, std::uint32_t rank,
                                      std::uint64_t from, std::uint64_t to) const;

    [[nodiscard]] const KvMirror& kv_state(std::uint32_t rank) const { return kv_[rank].state; }
    [[nodiscard]] std::uint64_t last_sequence(std::string_view topic, std::uint32_t rank) const;

  private:
    struct Stream {
        std::uint64_t last = 0;
        std::deque<Bytes> ring;  // messages up to `last`
        std::size_t ring_bytes = 0;
        TimePoint sent;
        KvMirror state;  // "kv" only
    };
    [[nodiscard]] const Stream* find(std::string_view topic, std::uint32_t rank) const;
    void append_part(std::uint32_t rank, std::span<const protocol::KvEvent> events, TimePoint now,
                     Out& out);
    void append_large(std::uint32_t rank, const protocol::KvEvent& event, TimePoint now, Out& out);
    void emit(std::string_view topic, std::uint32_t rank, Stream& stream, std::string_view payload,
              TimePoint now, Out& out);
    void beat(std::string_view topic, std::uint32_t rank, Stream& stream, TimePoint now,
              bool at_once, Out& out) const;

    protocol::Incarnation incarnation_;
    Options options_;
    std::vector<Stream> kv_;
    std::map<std::pair<std::string, std::uint32_t>, Stream, std::less<>> others_;
    std::string payload_;  // reused
};

}  // namespace stator::events
