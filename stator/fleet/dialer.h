#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <random>
#include <string>

#include "stator/fleet/linked_worker.h"
#include "stator/fleet/roster.h"

namespace stator::fleet {

/// One address, on one loop: dials it with back-off and jitter as long as it is wanted, one worker
/// after the other. Every method on the loop.
class Dialer final : public MemberEvents, public std::enable_shared_from_this<Dialer> {
  public:
    /// `options` must outlive it.
    Dialer(const FleetOptions& options, net::SocketAddress address, runtime::Loop& loop,
           std::shared_ptr<Roster> roster, std::uint64_t random_seed, const Clock& clock);

    /// Whether discovery names the address. Not any more: the worker goes when it has no streams.
    void set_wanted(bool wanted);
    /// Ends for good.
    void shut();
    // Any thread.
    [[nodiscard]] runtime::Loop& loop() const { return loop_; }
    /// Not wanted and without a worker: may be let go of.
    [[nodiscard]] bool idle() const { return idle_.load(std::memory_order_acquire); }

    // From the worker.
    Result<void> on_words(const std::shared_ptr<const protocol::WorkerInfo>& info) override;
    void on_state(MemberState from, MemberState to, const std::string& reason) override;
    void on_canary(bool lost) override;
    void on_over(const Error& why, bool refused) override;

  private:
    void dial();
    void dial_later(bool slowly);
    void log_over(const Error& why, bool refused);

    const FleetOptions& options_;
    runtime::Loop& loop_;
    const std::shared_ptr<Roster> roster_;
    const Clock& clock_;
    std::mt19937_64 random_;
    boost::asio::steady_timer timer_;
    WorkerView entry_;
    std::shared_ptr<LinkedWorker> worker_;
    std::optional<protocol::Incarnation> claimed_;
    std::chrono::milliseconds delay_{0};
    std::string last_failure_;  ///< logged once, not at each attempt
    bool duplicate_ = false;
    bool wanted_ = false;
    bool shut_ = false;
    std::atomic<bool> idle_{false};
};

}  // namespace stator::fleet
