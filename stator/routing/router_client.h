#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"

namespace stator::routing {

/// Where a request should go, booked by a router that others share.
struct Advice {
    std::string worker;
    std::uint32_t rank = 0;
    std::string booking;
};

/// A router that is asked: one for several frontends, in a process of its own. (The router in this
/// process is PoolRouter, called directly.) Any thread.
class RouterClient {
  public:
    virtual ~RouterClient() = default;

    using Done = std::function<void(Result<Advice>)>;
    /// Chooses a rank of the pool and books it. `done` is called exactly once, on some loop, within
    /// the client's time limit; an error says that whoever asked must choose by itself. What is
    /// needed of the request is read before this returns.
    virtual void reserve(const std::string& pool, const protocol::GenerateRequest& request,
                         Done done) = 0;
    /// The prompt is computed.
    /// `cached_tokens`: of the prompt; none: not known yet.
    virtual void first_token(const std::string& booking,
                             std::optional<std::uint32_t> cached_tokens) = 0;
    /// It has ended, or never began.
    virtual void release(const std::string& booking) = 0;
};

}  // namespace stator::routing
