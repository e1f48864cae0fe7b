#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/metrics/registry.h"
#include "stator/net/http_url.h"
#include "stator/routing/router_client.h"
#include "stator/runtime/loop.h"

namespace stator::routing {

struct RemoteRouterOptions {
    net::HttpUrl url;  ///< of `stator router`, or any frontend
    std::string key;   ///< API key; empty = none
    /// A request waits so long for its answer, then its frontend chooses by itself.
    std::chrono::milliseconds timeout{200};
    /// After failures in a row nobody asks for this long.
    std::chrono::milliseconds rest{1'000};
    std::uint32_t failures_before_rest = 3;
};

/// RouterClient over POST /router/{reserve,first_token,release}. Connections are kept, some on each
/// loop. A release that finds the router away is sent again a few times; what is not released there
/// ends by its own time.
class RemoteRouter final : public RouterClient {
  public:
    RemoteRouter(RemoteRouterOptions options, runtime::LoopPool& loops, metrics::Registry& registry,
                 const Clock& clock = Clock::real());
    ~RemoteRouter() override;  ///< stops
    RemoteRouter(const RemoteRouter&) = delete;
    RemoteRouter& operator=(const RemoteRouter&) = delete;

    void reserve(const std::string& pool, const protocol::GenerateRequest& request,
                 Done done) override;
    void first_token(const std::string& booking,
                     std::optional<std::uint32_t> cached_tokens) override;
    void release(const std::string& booking) override;

    /// What is asked fails at once; nothing is sent any more. Before the loops stop; not on one.
    void stop();

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::routing
