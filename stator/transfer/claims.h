#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/attempt.h"
#include "stator/transfer/store.h"
#include "stator/transfer/transfer.h"
#include "stator/transfer/transfer_metrics.h"

// Inside of the room.
namespace stator::transfer {

struct ClaimsOptions {
    std::uint64_t incoming_bytes = 0;
    std::chrono::nanoseconds longest{};  ///< where a claim has no deadline
    /// By method, best first.
    std::vector<std::pair<std::string, std::shared_ptr<Backend>>> ways;
    std::vector<protocol::TransferPlace> own;  ///< of this process
    std::shared_ptr<Arena> memory;             ///< where bytes arrive
};

/// The claims of this process: who waits, which way is tried, when it is over. Everything but
/// incoming_bytes() on one loop.
class Claims : public std::enable_shared_from_this<Claims> {
  public:
    using Callback = std::function<void(Result<std::shared_ptr<const protocol::HandoffBytes>>)>;

    Claims(std::shared_ptr<runtime::Loop> loop, std::shared_ptr<Store> store,
           std::shared_ptr<TransferMetrics> metrics, const Clock& clock);
    /// Once, before all else.
    void start(ClaimsOptions options) { options_ = std::move(options); }

    void claim(ClaimId id, std::shared_ptr<const protocol::Handoff> what, ClaimOptions options,
               Callback done);
    void cancel(ClaimId id);
    void release(const protocol::Handoff& what);
    /// Some that arrived was let go: whoever found no memory may try again.
    void memory_freed();
    /// kCancelled for all, those to come too.
    void stop();
    [[nodiscard]] std::uint64_t incoming_bytes() const { return incoming_; }

  private:
    struct Work;
    struct Way {
        std::size_t backend = 0;
        std::size_t place = 0;
    };
    using WorkPtr = std::shared_ptr<Work>;

    [[nodiscard]] Result<WorkPtr> accept(std::shared_ptr<const protocol::Handoff> what,
                                         const ClaimOptions& options) const;
    [[nodiscard]] bool is_own(const protocol::Handoff& what) const;
    void claim_own(const WorkPtr& work);
    void arm(const WorkPtr& work, Deadline deadline);
    void start_waiting();
    void try_next(const WorkPtr& work);
    void on_attempt_end(const WorkPtr& work, const std::shared_ptr<Attempt>& attempt,
                        Result<std::shared_ptr<const protocol::HandoffBytes>> result);
    void give_up(const WorkPtr& work, Error why);
    void end(const WorkPtr& work, Result<std::shared_ptr<const protocol::HandoffBytes>> result);

    const std::shared_ptr<runtime::Loop> loop_;
    const std::shared_ptr<Store> store_;
    const std::shared_ptr<TransferMetrics> metrics_;
    const Clock& clock_;
    ClaimsOptions options_;
    bool stopped_ = false;
    std::map<ClaimId, WorkPtr> works_;
    std::deque<WorkPtr> waiting_;
    std::atomic<std::uint64_t> incoming_ = 0;
};

}  // namespace stator::transfer
