#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/control/supervisor.h"

namespace stator::control {

/// Closes at the end; -1 = none.
class OwnedFd {
  public:
    OwnedFd() = default;
    explicit OwnedFd(int fd) : fd_(fd) {}
    ~OwnedFd() { reset(); }
    OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    OwnedFd& operator=(OwnedFd&& other) noexcept;
    [[nodiscard]] int get() const { return fd_; }
    void reset();

  private:
    int fd_ = -1;
};

/// A child process that leads a process group of its own. The kernel sends it SIGKILL when the
/// thread that started it ends. Not thread-safe. Room-internal.
class Process {
  public:
    /// `environment`: "NAME=value", to which the spec's own are added. Returns once the program
    /// runs, or with why it does not (kInvalidArgument, kExhausted).
    [[nodiscard]] static Result<Process> start(const ChildSpec& spec,
                                               const std::vector<std::string>& environment);
    /// Whoever still runs gets SIGKILL and is waited for.
    ~Process();
    Process(Process&& other) noexcept;
    Process& operator=(Process&& other) noexcept;

    [[nodiscard]] int pid() const { return pid_; }
    /// Readable once the process has ended; -1 where the kernel can't tell: then ask ended().
    [[nodiscard]] int end_fd() const { return pidfd_.get(); }
    /// Readable once the process said something; -1 after that.
    [[nodiscard]] int ready_fd() const { return said_ ? -1 : ready_.get(); }
    /// Whether it has told that it serves.
    [[nodiscard]] bool ready();
    /// How it ended, e.g. "exit status 2", "signal 9 (Killed)"; nullopt: it runs. Then what is left
    /// of its process group gets SIGKILL.
    [[nodiscard]] std::optional<std::string> ended();
    /// To its whole process group.
    void signal(int number) const;

  private:
    Process(int pid, OwnedFd pidfd, OwnedFd ready);
    void end_now();

    int pid_ = 0;  ///< 0: reaped
    OwnedFd pidfd_;
    OwnedFd ready_;
    bool said_ = false;
    bool told_ready_ = false;
};

}  // namespace stator::control
