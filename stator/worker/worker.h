#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/engine/engine.h"
#include "stator/events/publisher.h"
#include "stator/metrics/registry.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/protocol/worker_info.h"
#include "stator/requests/worker_session.h"
#include "stator/runtime/cpu_pool.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/transfer.h"
#include "stator/worker/artifact_store.h"

namespace stator::worker {

/// What the workers of one process share: a ZeroMQ context with its thread, and a thread that
/// copies snapshots and ranges. The pool must be stopped before the loops are.
struct WorkerServices {
    std::shared_ptr<events::PublisherHost> events;  ///< none where there is no event plane
    std::shared_ptr<runtime::CpuPool> fetches;
};
/// Without an event plane, `events` says nothing.
[[nodiscard]] Result<WorkerServices> start_worker_services(
    std::optional<events::PublisherHostOptions> events);

struct WorkerOptions {
    std::string name;  ///< stable over restarts; at most 256 bytes
    std::vector<protocol::Role> roles{protocol::Role::kAggregated};
    std::uint32_t ranks = 1;  ///< engines that set_ready() will bring; 1 to 1024
    std::map<std::string, std::string> labels;
    net::SocketAddress listen;  ///< TCP port 0 takes a free one
    std::string advertise;      ///< address to announce where it is not the one bound, port 0 = the
                                ///< one bound; empty = as bound
    std::string announce_folder;   ///< discovery::Announcement; empty = none
    std::string events_address;    ///< "tcp://127.0.0.1:*", "ipc:///path"; empty = no event plane
    std::string events_advertise;  ///< as `advertise`, ZeroMQ's form
    events::PublisherHostOptions events;
    std::optional<WorkerServices> services;  ///< shared with others; none = its own by `events`
    requests::WorkerSessionOptions session;
    std::function<std::string()> secret;
    std::function<std::shared_ptr<const net::TlsContext>()> tls;
    std::chrono::milliseconds load_every{
        100};  ///< a load report at least so often while load changes
    /// Null: takes and makes no handoffs but those of engines that hand over themselves, and has
    /// the roles prefill and encode only with `kv_method` and `media_objects`. Claims of this
    /// worker's are cancelled by stop().
    std::shared_ptr<transfer::TransferPlane> transfer;
    std::chrono::milliseconds claim_within{5'000};  ///< of a request's handoffs, at most
    /// EngineInfo::kv_method of the engines that set_ready() will bring, known before they are
    /// there: they move KV themselves, and it is announced as a way to do so.
    std::string kv_method = {};
    /// EngineInfo::media_objects of those engines: then the role encode needs no transfer plane.
    bool media_objects = false;
};

/// Offers one engine (a rank each) on the planes: listens for links, admits or refuses requests,
/// sends each step's tokens in one write per link, reports load, publishes events, hands out
/// artifacts. A request's handoffs are claimed before its engine gets it. It can be on the planes
/// before its engines are there: then it says `loading`.
class Worker {
  public:
    virtual ~Worker() = default;  ///< stop() must have been called
    [[nodiscard]] virtual const net::SocketAddress& address() const = 0;
    [[nodiscard]] virtual protocol::WorkerInfo info() const = 0;

    /// Where an engine gives its KV events; make it before the engine of that rank. Thread-safe.
    [[nodiscard]] virtual engine::KvEventSink kv_sink(std::uint32_t rank) = 0;
    /// Tells everybody how long loading will take.
    virtual void set_loading(std::uint32_t ready_in_ms) = 0;
    /// The model is there: ready for requests. `engines` must outlive this worker's stop(); one per
    /// rank (STATOR_CHECK). Once.
    virtual void set_ready(protocol::ModelCard card, ArtifactStore artifacts,
                           std::vector<engine::Engine*> engines) = 0;

    /// After set_ready(): whether its engines can take requests just now. While they can't it says
    /// that it is loading, and nobody sends any; those that are open go on. Thread-safe.
    virtual void set_available(bool available) = 0;

    /// Says go-away, refuses new requests, waits until the open ones have ended or the deadline is
    /// reached. The engines are still running afterwards. Not on a loop.
    virtual void drain(Deadline deadline) = 0;
    /// The first half of it: says go-away and refuses, and returns. drain() then does the rest, by
    /// this deadline. Of many workers none is to take requests while another still drains.
    virtual void begin_drain(Deadline deadline) = 0;
    /// Gone without a word, as if its process had been killed: links, listener, events. What was
    /// announced stays so until stop(). Not on a loop.
    virtual void vanish() = 0;
    /// Takes the announcement back and closes everything; what is open is lost.
    virtual void stop() = 0;
};
[[nodiscard]] Result<std::unique_ptr<Worker>> start_worker(WorkerOptions options,
                                                           protocol::ModelCard card_while_loading,
                                                           runtime::LoopPool& loops,
                                                           metrics::Registry& registry,
                                                           const Clock& clock = Clock::real());

}  // namespace stator::worker
