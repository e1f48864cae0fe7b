#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/codec/json_writer.h"
#include "stator/frontend/frontend.h"
#include "stator/metrics/registry.h"
#include "stator/net/http_url.h"
#include "stator/runtime/loop.h"

namespace stator::frontend {

struct RelayOptions {
    std::vector<net::HttpUrl> upstreams;  ///< at least one
    std::string key;                      ///< sent to all of them as a bearer token; empty = none
    /// Where there is no key: the client's own Authorization header goes on.
    bool pass_authorization = false;
    std::chrono::milliseconds probe_interval{2'000};
    std::chrono::milliseconds connect_timeout{2'000};
    std::chrono::milliseconds silence_timeout{300'000};
    std::size_t max_connections = 1'024;                    ///< per loop and upstream
    std::size_t max_answer_bytes = std::size_t{64} << 20U;  ///< of an answer that is not streamed
};

/// OpenAI-compatible servers as upstreams. Make it before the server listens; stop() it after the
/// server and before the loops.
class Relay final : public RequestRelay {
  public:
    /// Begins to probe. `loops` are those of the frontend.
    [[nodiscard]] static std::shared_ptr<Relay> start(RelayOptions options,
                                                      runtime::LoopPool& loops,
                                                      metrics::Registry& registry,
                                                      const Clock& clock = Clock::real());
    ~Relay() override;

    [[nodiscard]] bool serves(std::string_view model) const override;
    [[nodiscard]] std::vector<std::string> models() const override;
    [[nodiscard]] bool healthy() const override;
    [[nodiscard]] std::function<void()> pass_on(Request request) override;

    /// One object per upstream, for /health.
    void append_json(codec::JsonWriter& w) const;

    /// Closes all connections; requests in work end as if their upstream had. Not on a loop.
    void stop();

    struct Impl;

  private:
    explicit Relay(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::frontend
