#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/kv_event.h"
#include "stator/protocol/worker_info.h"

namespace stator::events {

/// CURVE keys of this process, Z85 text of 40 characters each. Empty = no encryption.
struct CurveKeys {
    std::string public_key;
    std::string secret_key;
};

struct PublisherHostOptions {
    CurveKeys curve;  ///< set: subscribers must encrypt
    std::vector<std::string>
        allowed_clients;  ///< public keys that may subscribe; empty = who knows our public key
    std::chrono::milliseconds heartbeat{1'000};
    std::size_t ring_batches = 4096;  ///< kept for ranges, per publisher, topic and rank …
    std::size_t ring_bytes = 16 * 1024 * 1024;  ///< … and no more bytes than this
    std::size_t max_queued_batches =
        65'536;  ///< between publish_kv() and the socket; full: publish_kv() waits
    int send_high_water_mark = 10'000;  ///< messages per subscriber; more are dropped by ZeroMQ
};

/// One worker's events: bound socket, sequence numbers, ring of the last batches, mirror of the KV
/// state. Thread-safe. Going away, it sends what is queued and gives ZeroMQ half a second for it.
class Publisher {
  public:
    virtual ~Publisher() = default;
    /// Where subscribers connect; the port as bound.
    [[nodiscard]] virtual const protocol::EventEndpoint& endpoint() const = 0;
    /// One batch on topic "kv". In order per rank: one caller per rank.
    virtual void publish_kv(std::uint32_t rank, std::vector<protocol::KvEvent> events) = 0;
    /// One message on another topic ("load", "lifecycle"): a MessagePack value. Dropped, and
    /// counted, where the queue is full.
    virtual void publish(std::string_view topic, std::uint32_t rank, std::string payload) = 0;
    /// Messages that publish() dropped so far.
    [[nodiscard]] virtual std::uint64_t dropped() const = 0;
    /// Everything this rank holds, at the last published sequence, as MessagePack
    /// (docs/event-plane.md). For answering Fetch::kSnapshot and kEventRange of the request plane;
    /// blocks for the time of copying.
    [[nodiscard]] virtual Result<std::shared_ptr<const std::string>> snapshot(
        std::string_view topic, std::uint32_t rank) = 0;
    /// kNotFound where the ring has no longer all of it.
    [[nodiscard]] virtual Result<std::shared_ptr<const std::string>> range(std::string_view topic,
                                                                           std::uint32_t rank,
                                                                           std::uint64_t from,
                                                                           std::uint64_t to) = 0;
};

/// A ZeroMQ context and the one thread that owns its sockets, for any number of publishers.
class PublisherHost {
  public:
    virtual ~PublisherHost() = default;  ///< stops; publishers of it must be gone
    /// `address`: "tcp://127.0.0.1:*", "ipc:///path". Errors name it and ZeroMQ's reason.
    [[nodiscard]] virtual Result<std::shared_ptr<Publisher>> bind(const std::string& address,
                                                                  protocol::Incarnation incarnation,
                                                                  std::uint32_t ranks) = 0;
};
[[nodiscard]] Result<std::unique_ptr<PublisherHost>> start_publishers(PublisherHostOptions options);

/// "PUBLIC SECRET" in Z85, fresh; what `stator events keygen` prints.
[[nodiscard]] CurveKeys make_curve_keys();

}  // namespace stator::events
