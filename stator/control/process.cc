#include "stator/control/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>

namespace stator::control {

namespace {

constexpr const char* kReadyVariable = "STATOR_READY_FD";

struct Pipe {
    OwnedFd read;
    OwnedFd write;
};

std::optional<Pipe> make_pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return std::nullopt;
    return Pipe{OwnedFd(ends[0]), OwnedFd(ends[1])};
}

std::vector<std::string> environment_of(const ChildSpec& spec, const std::vector<std::string>& ours,
                                        int ready_fd) {
    std::map<std::string, std::string> all;
    for (const std::string& variable : ours) {
        const auto equals = variable.find('=');
        if (equals == std::string::npos) continue;
        all[variable.substr(0, equals)] = variable.substr(equals + 1);
    }
    for (const auto& [name, value] : spec.environment) all[name] = value;
    all[kReadyVariable] = std::to_string(ready_fd);
    std::vector<std::string> out;
    for (const auto& [name, value] : all) out.push_back(name + "=" + value);
    return out;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> out;
    for (std::string& s : strings) out.push_back(s.data());
    out.push_back(nullptr);
    return out;
}

/// What the new process does before it is the program. Only system calls that POSIX allows after
/// fork() in a process with threads; nothing allocates. Does not return.
[[noreturn]] void become(char* const* command, char* const* environment, int ready_fd,
                         int problem_fd, pid_t parent) {
    const auto give_up = [problem_fd](int reason) {
        static_cast<void>(::write(problem_fd, &reason, sizeof reason));
        ::_exit(127);
    };
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The parent may have died before the kernel knew of our wish.
    if (::getppid() != parent) ::_exit(127);
    // Handlers of the parent must not run here, and what it ignores is no business of the program.
    struct sigaction usual{};
    usual.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; ++number) ::sigaction(number, &usual, nullptr);
    // Descriptors that some library opened without close-on-exec.
    static_cast<void>(::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC));
    if (::fcntl(ready_fd, F_SETFD, 0) != 0) give_up(errno);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(command[0], command, environment);
    give_up(errno);
    __builtin_unreachable();
}

/// Blocks all signals of this thread while it lives: one that came between fork() and exec() would
/// run the parent's handlers in the child.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    sigset_t before_{};
};

/// What become() had to tell; 0: the program runs.
int read_problem(int fd) {
    int reason = 0;
    ssize_t n = 0;
    do n = ::read(fd, &reason, sizeof reason);
    while (n < 0 && errno == EINTR);
    return n == sizeof reason ? reason : 0;
}

std::string describe(const siginfo_t& info) {
    if (info.si_code == CLD_EXITED) return fmt::format("exit status {}", info.si_status);
    const char* name = ::sigdescr_np(info.si_status);
    return fmt::format("signal {} ({})", info.si_status, name != nullptr ? name : "unknown");
}

}  // namespace

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
    if (this != &other) {
        reset();
        fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
}

void OwnedFd::reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

Process::Process(int pid, OwnedFd pidfd, OwnedFd ready)
    : pid_(pid), pidfd_(std::move(pidfd)), ready_(std::move(ready)) {}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::move(other.pidfd_)),
      ready_(std::move(other.ready_)),
      said_(other.said_),
      told_ready_(other.told_ready_) {}

Process& Process::operator=(Process&& other) noexcept {
    if (this != &other) {
        end_now();
        pid_ = std::exchange(other.pid_, 0);
        pidfd_ = std::move(other.pidfd_);
        ready_ = std::move(other.ready_);
        said_ = other.said_;
        told_ready_ = other.told_ready_;
    }
    return *this;
}

Process::~Process() { end_now(); }

void Process::end_now() {
    if (pid_ == 0) return;
    signal(SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
}

Result<Process> Process::start(const ChildSpec& spec, const std::vector<std::string>& environment) {
    auto ready = make_pipe();
    auto problem = make_pipe();
    if (!ready || !problem) {
        return error(ErrorCode::kExhausted, "no pipe can be made: {}", std::strerror(errno));
    }
    ::fcntl(ready->read.get(), F_SETFL, O_NONBLOCK);
    std::vector<std::string> command = spec.command;
    std::vector<std::string> variables = environment_of(spec, environment, ready->write.get());
    const std::vector<char*> command_pointers = pointers(command);
    const std::vector<char*> variable_pointers = pointers(variables);
    const pid_t self = ::getpid();
    pid_t pid = -1;
    int reason = 0;
    {
        const SignalsBlocked blocked;
        pid = ::fork();
        if (pid == 0) {
            become(command_pointers.data(), variable_pointers.data(), ready->write.get(),
                   problem->write.get(), self);
        }
        reason = errno;
    }
    if (pid < 0) {
        return error(ErrorCode::kExhausted, "no process can be made: {}", std::strerror(reason));
    }
    problem->write.reset();
    ready->write.reset();
    if (const int why = read_problem(problem->read.get()); why != 0) {
        while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
        }
        return error(ErrorCode::kInvalidArgument, "'{}' can't be run: {}", spec.command[0],
                     std::strerror(why));
    }
    // Close-on-exec by itself. Kernels before 5.3 and some sandboxes have none: then -1.
    OwnedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U)));
    return Process(pid, std::move(pidfd), std::move(ready->read));
}

bool Process::ready() {
    if (said_) return told_ready_;
    std::array<char, 64> buffer{};
    const ssize_t n = ::read(ready_.get(), buffer.data(), buffer.size());
    if (n < 0) return false;
    // The descriptor stays open: a child that writes once more must not get SIGPIPE.
    said_ = true;
    told_ready_ = n > 0;
    return told_ready_;
}

std::optional<std::string> Process::ended() {
    siginfo_t info{};
    if (pid_ == 0) return "ended";
    if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        info.si_pid == 0) {
        return std::nullopt;
    }
    // While it is not reaped nobody else can get its number, nor that of its group.
    signal(SIGKILL);
    static_cast<void>(::waitpid(pid_, nullptr, 0));
    pid_ = 0;
    return describe(info);
}

void Process::signal(int number) const {
    if (pid_ != 0) ::kill(-pid_, number);
}

}  // namespace stator::control
