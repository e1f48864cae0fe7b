#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/encoder_registry.h"
#include "stator/metrics/registry.h"
#include "stator/net/http_server.h"
#include "stator/protocol/worker_info.h"
#include "stator/runtime/loop.h"

namespace stator::cli {

/// What a worker shows over HTTP, for probes and Prometheus: /health (200 only where it is ready
/// for requests), /live, /metrics. No requests to the model are taken here.
class WorkerDoor {
  public:
    /// `address`: HOST:PORT. Beyond this machine only where `allow_unauthenticated` says so: what
    /// it shows needs no key. `info` must be thread-safe, as `concerns`, which tells what is not as
    /// it should be: then it is degraded. `encoders`: its routes are answered, too; null: no such.
    [[nodiscard]] static Result<std::unique_ptr<WorkerDoor>> open(
        const std::string& address, bool allow_unauthenticated,
        std::function<protocol::WorkerInfo()> info, metrics::Registry& registry,
        runtime::LoopPool& loops, std::function<std::vector<std::string>()> concerns = {},
        std::shared_ptr<EncoderRegistry> encoders = nullptr);
    ~WorkerDoor();
    [[nodiscard]] std::uint16_t port() const { return server_.port(); }

  private:
    WorkerDoor(std::function<protocol::WorkerInfo()> info,
               std::function<std::vector<std::string>()> concerns, metrics::Registry& registry,
               runtime::LoopPool& loops, std::shared_ptr<EncoderRegistry> encoders);
    net::HttpServer server_;
};

}  // namespace stator::cli
