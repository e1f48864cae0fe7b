#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/cli/api_keys.h"
#include "stator/config/settings.h"
#include "stator/frontend/frontend.h"
#include "stator/media/loader.h"
#include "stator/metrics/registry.h"
#include "stator/net/http_server.h"
#include "stator/runtime/loop.h"

namespace stator::cli {

/// The keys that clients must send, checked together with the address to listen on: what
/// `stator serve` and `stator frontend` ask before anything else. Warnings are logged.
[[nodiscard]] Result<ApiKeys> read_door_keys(const config::Settings& settings);

/// HTTP server, frontend and the loops they share, as the settings want them. Models and engines
/// are the caller's: they go between stop_serving() and stop_loops().
class HttpDoor {
  public:
    HttpDoor(const config::Settings& settings, ApiKeys keys, std::size_t threads,
             metrics::Registry& registry);

    [[nodiscard]] frontend::Frontend& frontend() { return frontend_; }
    [[nodiscard]] runtime::LoopPool& loops() { return loops_; }
    /// Of tenants, as the file with the keys names them.
    [[nodiscard]] const std::vector<std::pair<std::string, double>>& tenant_weights() const {
        return tenant_weights_;
    }

    /// Takes messages with images and videos from now on, where this machine can read them; else
    /// the log says why not. Before listen().
    void take_media(metrics::Registry& registry);
    /// Binds, listens, writes the port file.
    [[nodiscard]] Result<void> listen();
    [[nodiscard]] std::uint16_t port() const { return server_.port(); }

    /// No new requests; those in work end until the deadline, the rest is cut off.
    void stop_serving(Deadline deadline);
    /// The last thing: the loops end and the port file goes.
    void stop_loops();

  private:
    const config::Settings& settings_;
    std::vector<std::pair<std::string, double>> tenant_weights_;
    runtime::LoopPool loops_;
    frontend::Frontend frontend_;
    net::HttpServer server_;
    std::shared_ptr<media::MediaLoader> media_;  ///< null: none is taken
};

}  // namespace stator::cli
