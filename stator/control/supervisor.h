#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"

namespace stator::control {

/// A process to keep running.
struct ChildSpec {
    std::string name;                                ///< for logs; unique
    std::vector<std::string> command;                ///< argv; [0] is a path
    std::map<std::string, std::string> environment;  ///< added to our own
};

struct SupervisorOptions {
    std::chrono::milliseconds restart_min{200};
    std::chrono::milliseconds restart_max{10'000};  ///< doubling; back to min after `stable_after`
    std::chrono::milliseconds stable_after{30'000};
    std::chrono::milliseconds ready_within{300'000};  ///< for restart_all(): else the restart stops
    std::chrono::milliseconds grace{30'000};          ///< between SIGTERM and SIGKILL
    /// With this status a child says that another try is of no use. So often in a row, without
    /// having been ready, and it is not started again, but by restart_all().
    int hopeless_status = 78;
    std::uint32_t hopeless_tries = 5;
};

enum class ChildState : std::uint8_t { kStarting, kReady, kBackingOff, kStopping, kStopped };
std::string_view to_string(ChildState state);

struct ChildStatus {
    std::string name;
    int pid = 0;  ///< 0: not running
    ChildState state = ChildState::kStarting;
    std::uint32_t restarts = 0;
    std::string last_end;  ///< "exit status 2", "signal 9 (Killed)"
};

/// Runs child processes and restarts those that die, with back-off. A child gets the descriptor
/// number of a pipe in $STATOR_READY_FD and writes a line there once it serves. No orphans: a child
/// is ended by the kernel where this process dies (PR_SET_PDEATHSIG), and its whole process group
/// by stop(). Its output goes where ours goes. Has a thread of its own; thread-safe.
class Supervisor {
  public:
    virtual ~Supervisor() = default;  ///< stops
    [[nodiscard]] virtual std::vector<ChildStatus> status() const = 0;
    /// One more child, at once. kInvalidArgument: no command, or the name is taken (a removed one's
    /// too, until it has ended). kCancelled: after stop().
    [[nodiscard]] virtual Result<void> add(ChildSpec child) = 0;
    /// SIGTERM to this child, SIGKILL after the grace time; it is gone from status() when it has
    /// ended. Does not wait. kNotFound: there is none, or it is being removed already.
    [[nodiscard]] virtual Result<void> remove(std::string_view name) = 0;
    /// Replaces every child, one after the other: starts the new one, waits until it is ready, then
    /// sends the old one SIGTERM and waits for its end. An error names the child that did not
    /// become ready; those after it are left as they are. Blocks; one at a time.
    [[nodiscard]] virtual Result<void> restart_all() = 0;
    /// A restart_all() under way gives up at its next wait, with kCancelled. Later ones too.
    virtual void stop_restart() = 0;
    /// SIGTERM to all, SIGKILL to what is left after the grace time; returns when all have ended.
    virtual void stop() = 0;
};
[[nodiscard]] Result<std::unique_ptr<Supervisor>> supervise(std::vector<ChildSpec> children,
                                                            SupervisorOptions options,
                                                            const Clock& clock = Clock::real());

/// Tells the supervisor of this process, if there is one, that it serves now.
void tell_ready();

}  // namespace stator::control
