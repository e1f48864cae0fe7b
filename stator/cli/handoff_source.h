#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/protocol/generate.h"
#include "stator/requests/link.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/transfer.h"

namespace stator::cli {

/// The name under which this offers itself: who connects looks for it.
inline constexpr std::string_view kHandoffSourceModel = "stator-bench-transfer";

struct HandoffSourceOptions {
    net::SocketAddress listen;
    std::function<std::string()> secret;
    std::function<std::shared_ptr<const net::TlsContext>()> tls;
    std::chrono::milliseconds lost_after{10'000};
};

/// The side of `stator bench transfer` that makes handoffs. To a link it looks like a prefill
/// worker, so that secret, TLS and the handoff's way over the link are the product's own, but it
/// has no engine: a whole request makes it reserve and fill memory, a prefill leg makes it publish
/// that. See memory_request() and publish_request(). One handoff per link at a time.
class HandoffSource {
  public:
    [[nodiscard]] static Result<std::unique_ptr<HandoffSource>> start(
        HandoffSourceOptions options, std::shared_ptr<transfer::TransferPlane> plane,
        runtime::LoopPool& loops);
    ~HandoffSource();  ///< stops; not on a loop
    HandoffSource(const HandoffSource&) = delete;
    HandoffSource& operator=(const HandoffSource&) = delete;

    [[nodiscard]] const net::SocketAddress& address() const { return server_->address(); }

  private:
    HandoffSource() = default;
    std::unique_ptr<requests::LinkServer> server_;
};

/// Ends with kLength once so many bytes are reserved and written; or with kError.
[[nodiscard]] protocol::GenerateRequest memory_request(std::uint64_t bytes);
/// Ends with kHandoff, whose shape are HandoffFacts.
[[nodiscard]] protocol::GenerateRequest publish_request();

}  // namespace stator::cli
