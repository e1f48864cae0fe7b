#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/engine/probe/probe.h"
#include "stator/net/http_pool.h"
#include "stator/runtime/loop.h"

namespace stator::engine {

/// Asks an engine's HTTP server one question after the other. Not on a loop.
class EngineClient {
  public:
    /// `key`: sent as a bearer token; empty = none. kInvalidArgument: the reasons of
    /// net::HttpPool::create().
    [[nodiscard]] static Result<std::unique_ptr<EngineClient>> open(
        net::HttpUrl url, const std::string& key, const Clock& clock = Clock::real());
    ~EngineClient();
    EngineClient(const EngineClient&) = delete;
    EngineClient& operator=(const EngineClient&) = delete;

    /// A GET, answered or given up within `within`. At most kMaxBytes of the answer.
    [[nodiscard]] EngineAnswer ask(std::string_view path,
                                   std::chrono::milliseconds within = std::chrono::seconds(10));
    /// The same with a JSON body, as a POST.
    [[nodiscard]] EngineAnswer post(std::string_view path, std::string body,
                                    std::chrono::milliseconds within = std::chrono::seconds(10));
    /// The same with another method.
    [[nodiscard]] EngineAnswer send(std::string_view method, std::string_view path,
                                    std::string body,
                                    std::chrono::milliseconds within = std::chrono::seconds(10));
    static constexpr std::size_t kMaxBytes = 16U * 1024 * 1024;

  private:
    explicit EngineClient(const Clock& clock) : clock_(clock), loop_("probe") {}
    [[nodiscard]] EngineAnswer call(net::HttpCallRequest request, std::chrono::milliseconds within);

    const Clock& clock_;
    runtime::Loop loop_;
    std::unique_ptr<net::HttpPool> pool_;  ///< of the loop
};

}  // namespace stator::engine
