#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/cli/handoff_facts.h"
#include "stator/protocol/worker_info.h"
#include "stator/requests/link.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/transfer.h"

namespace stator::cli {

/// One handoff, as the side that claims sees it.
struct HandoffSample {
    double seconds_to_arrive =
        0;  ///< from asking for it to the claim's end, the link's way included
    double seconds_to_claim = 0;  ///< the claim alone
    double seconds_to_read = 0;   ///< the claim and one look at every byte by one thread
    double cpu_seconds = 0;       ///< of this process until it has arrived
    HandoffFacts facts;
};

/// The side of `stator bench transfer` that claims: a link to a HandoffSource and one handoff after
/// the other. On one thread that is not the loop's; its methods wait, but never longer than
/// kWithin, and not when `interrupted` says so (kCancelled).
class HandoffProbe {
  public:
    static constexpr std::chrono::seconds kWithin{60};

    HandoffProbe(runtime::Loop& loop, std::shared_ptr<transfer::TransferPlane> plane,
                 std::function<bool()> interrupted);
    ~HandoffProbe();
    HandoffProbe(const HandoffProbe&) = delete;
    HandoffProbe& operator=(const HandoffProbe&) = delete;

    /// The link is there and who answers is a HandoffSource. kUnavailable, kUnauthenticated,
    /// kInvalidArgument (something else answers).
    [[nodiscard]] Result<protocol::WorkerInfo> connect(requests::LinkOptions options);
    /// Lets the other side make a handoff of so many bytes and takes it by this method alone.
    /// kDataLoss: other bytes came than were sent.
    [[nodiscard]] Result<HandoffSample> take(const std::string& method, std::uint64_t bytes);
    /// What the other side says now; nothing is moved.
    [[nodiscard]] Result<HandoffFacts> facts();

  private:
    struct Shared;
    class Events;

    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> ask(
        protocol::GenerateRequest request, const std::string& claim_by);
    template <typename F>
    [[nodiscard]] Result<void> wait(F done);

    runtime::Loop& loop_;
    std::shared_ptr<transfer::TransferPlane> plane_;
    std::function<bool()> interrupted_;
    std::shared_ptr<Shared> shared_;
    std::unique_ptr<Events> events_;
    std::shared_ptr<requests::Link> link_;
};

}  // namespace stator::cli
