#pragma once

#include <cstddef>
#include <memory>

#include "stator/base/error.h"
#include "stator/events/subscriber.h"
#include "stator/fleet/fleet.h"

namespace stator::routing {

/// The one receiver of KV events of a process: a thread, a socket for each worker. Snapshots and
/// ranges are fetched over the worker's link. Any thread.
class KvFeed {
  public:
    /// `expected_workers`: descriptors for so many must be had; kExhausted says how.
    [[nodiscard]] static Result<std::shared_ptr<KvFeed>> start(
        events::SubscriberHostOptions options, std::size_t expected_workers);

    /// Keeps `receiver` equal to what the worker's ranks hold, on the feed's thread, until the
    /// subscription is gone. kNotFound: the worker publishes none.
    [[nodiscard]] Result<std::unique_ptr<events::Subscription>> follow(
        const std::shared_ptr<fleet::Worker>& worker, std::shared_ptr<events::KvReceiver> receiver);

  private:
    explicit KvFeed(std::unique_ptr<events::SubscriberHost> host) : host_(std::move(host)) {}

    std::unique_ptr<events::SubscriberHost> host_;
};

}  // namespace stator::routing
