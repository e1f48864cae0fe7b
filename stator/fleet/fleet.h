#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/fleet/membership.h"
#include "stator/metrics/registry.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/worker_info.h"
#include "stator/requests/client_link.h"
#include "stator/requests/messages.h"
#include "stator/runtime/loop.h"

namespace stator::fleet {

/// Receives what happens on streams of one worker, on that worker's loop. A tag is the opener's own
/// number for a stream (an index into its table): what comes for the stream carries it. Must not
/// call Worker::open() from here: at_turn_end() is the place.
class StreamEvents {
  public:
    virtual ~StreamEvents() = default;
    /// As requests::ClientLinkEvents::on_step.
    virtual void on_step(std::uint64_t tag, const protocol::StepEvent& event,
                         std::span<const protocol::TokenOutput> tokens,
                         std::span<const protocol::TokenLogprob> top) = 0;
    /// Told to every StreamEvents that got an on_step since the last turn's end.
    virtual void on_turn_end() = 0;
    /// The link is over or the worker is stuck, and with it this stream; nothing more is told of
    /// it.
    virtual void on_stream_lost(std::uint64_t tag, const Error& why) = 0;
};

/// One life of one worker as this process sees it: an incarnation, never reused for the next one.
/// Kept by shared_ptr; after the worker is gone its methods fail with kUnavailable.
class Worker {
  public:
    virtual ~Worker() = default;
    // Any thread.
    /// Counts up over all workers ever seen by this process.
    [[nodiscard]] virtual std::uint64_t id() const = 0;
    [[nodiscard]] virtual runtime::Loop& loop() const = 0;
    /// What it said last.
    [[nodiscard]] virtual std::shared_ptr<const protocol::WorkerInfo> info() const = 0;
    [[nodiscard]] virtual MemberState state() const = 0;
    /// Its last report for a rank, corrected by what was opened and what ended here since: what the
    /// worker will say once it has seen it.
    [[nodiscard]] virtual protocol::LoadReport load(std::uint32_t rank) const = 0;

    // On its loop.
    /// Opens a stream whose events go to `events`, which must live until the stream's end.
    /// kUnavailable: not there any more, draining; kOverloaded: too many streams on the link.
    [[nodiscard]] virtual Result<requests::StreamId> open(
        std::shared_ptr<const protocol::GenerateRequest> request, std::uint32_t rank,
        StreamEvents& events, std::uint64_t tag) = 0;
    /// The stream is over; nothing more is told of it.
    virtual void cancel(requests::StreamId stream) = 0;
    /// The handoff that this stream has ended with will not be used; best effort.
    virtual void release(requests::StreamId /*stream*/) {}
    /// `lost` is called on the loop, once, if the early handoff (protocol::LostHandoff) that this
    /// stream has ended with is lost, or the worker is; not after release(). Best effort: a worker
    /// remembers a bounded number of them.
    virtual void watch_handoff(requests::StreamId /*stream*/,
                               std::function<void(const Error&)> /*lost*/) {}
    /// `done` is called on the loop, once, whatever happens.
    virtual void fetch(const requests::Fetch& what,
                       std::function<void(Result<std::string>)> done) = 0;
};

struct WorkerView {
    net::SocketAddress address;
    MemberState state = MemberState::kConnecting;
    std::string reason;                                ///< of the last change of state, for people
    std::shared_ptr<const protocol::WorkerInfo> info;  ///< null until a handshake was done
    std::string pool;                                  ///< id; empty until then
    std::shared_ptr<Worker> worker;                    ///< null until then
};

/// Workers that are interchangeable.
struct PoolView {
    std::string id;
    std::shared_ptr<const protocol::ModelCard> card;  ///< of the first worker seen
    std::vector<std::shared_ptr<Worker>> ready;       ///< those that take new requests
    std::size_t workers = 0;                          ///< in any state but gone
    std::uint64_t opened = 0;  ///< counts up: a later pool has a higher number
};

/// The fleet at one moment; never changes. A pool without workers stays as long as it is
/// remembered (FleetOptions::remember_pools).
struct FleetView {
    std::uint64_t version = 0;
    std::vector<WorkerView> workers;
    std::vector<PoolView> pools;
    std::map<std::string, std::string> failing_sources;  ///< name → reason
};

struct FleetOptions {
    std::vector<std::string> sources;  ///< as discovery::make_source() reads them
    requests::ClientLinkOptions link;  ///< name, incarnation, times; the secret is asked for below
    std::function<std::string()> secret;                          ///< for each new connection
    std::function<std::shared_ptr<const net::TlsContext>()> tls;  ///< null result = plain
    std::chrono::milliseconds dial_again_min{50};
    std::chrono::milliseconds dial_again_max{5'000};  ///< doubling, with jitter
    /// A worker whose streams are open but whose engine has made no step for so long is asked to
    /// generate one token (a canary) …
    std::chrono::milliseconds canary_after{5'000};
    /// … and has so long for it; then it is suspect and its streams are lost to it.
    std::chrono::milliseconds canary_within{10'000};
    std::chrono::milliseconds remember_pools{10 * 60'000};
    std::size_t max_workers = 65'536;
    std::uint64_t random_seed = 1;
};

/// Who is there: dials what discovery finds, keeps one link to each worker, and tells what it
/// learns as immutable views. Links are spread over the loops. See membership.h for the states.
class Fleet {
  public:
    virtual ~Fleet() = default;  ///< stop() must have been called
    /// Any thread; a pointer to what is true now.
    [[nodiscard]] virtual std::shared_ptr<const FleetView> view() const = 0;
    /// `changed` is called on one loop, first with the present view, then with each new one; views
    /// that follow each other quickly may be left out, the last one never is.
    virtual void watch(std::function<void(std::shared_ptr<const FleetView>)> changed) = 0;
    /// Closes all links: open streams are lost. Not on a loop; the loops must still run.
    virtual void stop() = 0;
};
[[nodiscard]] Result<std::unique_ptr<Fleet>> start_fleet(FleetOptions options,
                                                         runtime::LoopPool& loops,
                                                         metrics::Registry& registry,
                                                         const Clock& clock = Clock::real());

}  // namespace stator::fleet
