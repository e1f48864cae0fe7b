#pragma once

#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/events/payloads.h"
#include "stator/events/publisher.h"
#include "stator/protocol/kv_event.h"
#include "stator/protocol/load.h"
#include "stator/protocol/worker_info.h"
#include "stator/requests/messages.h"
#include "stator/worker/worker_metrics.h"

namespace stator::worker {

/// This worker's side of the event plane: what is published under which topic, and the answers to
/// clients that fetch a snapshot or a range. Without an address it takes everything and publishes
/// nothing. Thread-safe; after close() what comes is dropped and counted, because engines go on
/// longer than the worker.
class EventOutlet {
  public:
    struct Options {
        std::string address;    ///< empty = no event plane
        std::string advertise;  ///< empty = as bound; a port "*" or 0 stands for the bound one
        std::shared_ptr<events::PublisherHost> host;  ///< set where there is an address
        protocol::Incarnation incarnation;
        std::uint32_t ranks = 1;
    };
    [[nodiscard]] static Result<std::shared_ptr<EventOutlet>> open(Options options,
                                                                   const WorkerMetrics& metrics);
    EventOutlet(const EventOutlet&) = delete;
    EventOutlet& operator=(const EventOutlet&) = delete;
    ~EventOutlet();

    [[nodiscard]] const std::optional<protocol::EventEndpoint>& endpoint() const {
        return endpoint_;
    }
    /// Topic "kv". On the engine's thread; waits where the publisher's queue is full.
    void kv(std::uint32_t rank, const std::vector<protocol::KvEvent>& events);
    /// Topics "load" and "lifecycle" (events/payloads.h).
    void load(std::uint32_t rank, const protocol::LoadReport& load,
              const protocol::ForwardPassMetrics& passes);
    void lifecycle(events::LifecycleState state, const std::string& name);
    /// Copies the state out; takes as long as that takes. Not on a loop.
    [[nodiscard]] Result<std::shared_ptr<const std::string>> fetch(const requests::Fetch& what);
    void close();

  private:
    explicit EventOutlet(const WorkerMetrics& metrics) : metrics_(metrics) {}
    void publish(std::string_view topic, std::uint32_t rank, std::string payload);

    WorkerMetrics metrics_;  ///< its own: sinks outlive the worker, but not the registry
    std::optional<protocol::EventEndpoint> endpoint_;
    std::uint32_t ranks_ = 0;
    bool configured_ = false;
    std::shared_mutex mutex_;  ///< shared: publishing; alone: close()
    std::shared_ptr<events::PublisherHost> host_;
    std::shared_ptr<events::Publisher> publisher_;
};

}  // namespace stator::worker
