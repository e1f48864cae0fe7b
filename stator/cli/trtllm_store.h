#pragma once

#include <functional>
#include <memory>
#include <string>

#include "stator/base/error.h"
#include "stator/control/supervisor.h"
#include "stator/engine/dialects/cluster_store.h"

namespace stator::cli {

/// TensorRT-LLM workers that register themselves: serves their store (engine::ClusterStore) and
/// keeps a worker process of ours running for each, as long as it is registered. Has a loop and a
/// thread of its own.
class TrtllmStore {
  public:
    /// How to run a worker before an engine: its name, "http://host:port" and role.
    using CommandOf = std::function<control::ChildSpec(
        const std::string& name, const std::string& url, const std::string& role)>;
    static constexpr std::size_t kMostWorkers = 256;

    /// `address`: HOST:PORT; beyond this machine only where `allow_unauthenticated` says so: who
    /// reaches it says where requests go. `children` must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<TrtllmStore>> open(const std::string& address,
                                                                   bool allow_unauthenticated,
                                                                   control::Supervisor& children,
                                                                   CommandOf command);
    virtual ~TrtllmStore() = default;  ///< its children go on
    [[nodiscard]] virtual std::uint16_t port() const = 0;
};

}  // namespace stator::cli
