#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/gateway/body_budget.h"
#include "stator/gateway/exchange.h"
#include "stator/gateway/picker.h"
#include "stator/metrics/registry.h"

namespace stator::gateway {

struct ExtProcOptions {
    std::string listen = "127.0.0.1:9002";  ///< HOST:PORT; port 0: any that is free
    std::string certificate;                ///< PEM; empty: no TLS
    std::string key;                        ///< PEM
    ExchangeOptions exchange;
    std::size_t max_kept_bytes = std::size_t{512} * 1024 * 1024;  ///< bodies of all streams
};

/// Envoy's external processing service over gRPC, in front of a picker, with gRPC's health service:
/// `liveness` as long as it runs, `readiness` and the service's own name while ready() says so and
/// it is not draining.
class ExtProcServer {
  public:
    virtual ~ExtProcServer() = default;  ///< stop() must have been called
    [[nodiscard]] virtual std::uint16_t port() const = 0;
    /// Health says no from now on; requests are served as before.
    virtual void drain() = 0;
    /// Streams in work may end until the deadline; the rest is cut off.
    virtual void stop(Deadline deadline) = 0;
};

/// `picker` and `ready` must live until stop() returned. kUnsupported: this program was built
/// without gRPC. kInvalidArgument: it can't listen there.
[[nodiscard]] Result<std::unique_ptr<ExtProcServer>> start_ext_proc_server(
    ExtProcOptions options, Picker& picker, metrics::Registry& registry,
    const Clock& clock = Clock::real());

}  // namespace stator::gateway
