#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/events/message.h"
#include "stator/events/publisher.h"
#include "stator/protocol/kv_event.h"
#include "stator/protocol/worker_info.h"

namespace stator::events {

struct SubscriberHostOptions {
    CurveKeys curve;  ///< this client's own keys, used where the publisher has a key
    int receive_high_water_mark = 100'000;
    std::chrono::milliseconds silent_after{5'000};  ///< without a heartbeat: told as degraded
};

/// Asks the publisher's worker for a snapshot or a range (over its link's bulk lane) and gives the
/// answer to `done`, from any thread, once.
using Fetcher =
    std::function<void(bool snapshot, std::string topic, std::uint32_t rank, std::uint64_t from,
                       std::uint64_t to, std::function<void(Result<std::string>)> done)>;

/// Receives one publisher's KV state as it changes; on the host's thread.
class KvReceiver {
  public:
    virtual ~KvReceiver() = default;
    /// In order, without gaps or duplicates, since the last reset().
    virtual void apply(std::uint32_t rank, const protocol::KvEvent& event) = 0;
    /// Everything known of this rank is void (new incarnation, snapshot follows).
    virtual void reset(std::uint32_t rank) = 0;
    /// The state equals the publisher's as of `sequence` (true), or may be behind it (false).
    virtual void live(std::uint32_t rank, bool is_live, std::uint64_t sequence) = 0;
};

struct SubscriptionStats {
    std::uint64_t batches = 0;
    std::uint64_t block_events = 0;
    std::uint64_t gaps = 0;
    std::uint64_t snapshots = 0;
    std::uint64_t ranges = 0;
    std::uint64_t duplicates = 0;
    std::uint64_t rejected = 0;  ///< messages that were not understood
};

class Subscription {
  public:
    /// Ends it; no call comes after. Not from within its own receiver's calls.
    virtual ~Subscription() = default;
    [[nodiscard]] virtual SubscriptionStats stats() const = 0;
};

/// A ZeroMQ context and the one thread that owns its SUB sockets, one per publisher.
class SubscriberHost {
  public:
    virtual ~SubscriberHost() = default;  ///< its subscriptions must be gone
    /// Keeps `receiver` equal to the publisher's KV state. `ranks` as the worker said.
    [[nodiscard]] virtual Result<std::unique_ptr<Subscription>> follow_kv(
        const protocol::EventEndpoint& endpoint, protocol::Incarnation incarnation,
        std::uint32_t ranks, Fetcher fetch, std::shared_ptr<KvReceiver> receiver) = 0;
    /// Every message of these topics (empty = all), heartbeats included, as they come.
    [[nodiscard]] virtual Result<std::unique_ptr<Subscription>> listen(
        const protocol::EventEndpoint& endpoint, std::vector<std::string> topics,
        std::function<void(const Message&)> take) = 0;
};
/// Raises this process's soft limit of open files where it must, and checks at once that
/// descriptors and sockets for `expected_publishers` can be had: kExhausted says which limit is in
/// the way and how to raise it.
[[nodiscard]] Result<std::unique_ptr<SubscriberHost>> start_subscribers(
    SubscriberHostOptions options, std::size_t expected_publishers);

}  // namespace stator::events
