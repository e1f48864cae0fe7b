#include "stator/control/supervisor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "stator/base/log.h"
#include "stator/control/process.h"

namespace stator::control {

namespace {

using std::chrono::milliseconds;

/// Where the kernel can't tell of a process's end, it is asked for this often.
constexpr milliseconds kAskForEnd{20};

struct Running {
    Process process;
    TimePoint started;
    bool ready = false;
    Deadline kill_at;  ///< after SIGTERM
};

/// A replacement's way: wanted → starting → old leaving → none.
enum class Replacing : std::uint8_t {
    kNone,
    kWanted,      ///< restart_all() asks for it
    kStarting,    ///< the new process is not ready yet; the old one serves
    kOldLeaving,  ///< the new process serves; the old one ends
};

/// A child to keep running, over all its processes.
struct Slot {
    ChildSpec spec;
    std::optional<Running> current;
    std::optional<Running> next;   ///< will take the place of `current` once ready
    std::vector<Running> leaving;  ///< were told to end
    milliseconds delay{};          ///< before the next restart
    Deadline start_at;             ///< where nothing runs
    std::uint32_t restarts = 0;
    std::string last_end;
    std::uint32_t in_vain = 0;  ///< ends in a row that say that another try is of no use
    bool given_up = false;
    bool removed = false;     ///< ends, and goes away when it has
    bool in_restart = false;  ///< restart_all() looks at it: it may not go away yet

    Replacing replacing = Replacing::kNone;
    bool promoted = false;  ///< starting: the old one died and the new one took its place early
    Deadline ready_by;
    std::optional<Result<void>> replaced;  ///< the outcome, for restart_all()

    [[nodiscard]] bool empty() const { return !current && !next && leaving.empty(); }
};

class ThreadSupervisor final : public Supervisor {
  public:
    ThreadSupervisor(std::vector<ChildSpec> children, SupervisorOptions options, const Clock& clock,
                     OwnedFd wake)
        : options_(options), clock_(clock), wake_(std::move(wake)) {
        for (char** variable = ::environ; *variable != nullptr; ++variable) {
            environment_.emplace_back(*variable);
        }
        for (ChildSpec& spec : children) place(std::move(spec));
        // All children are started by this thread, which lives longer than they: the kernel ends
        // a child when the thread that started it ends.
        thread_ = std::thread([this] { run(); });
    }
    ~ThreadSupervisor() override { stop(); }
    ThreadSupervisor(const ThreadSupervisor&) = delete;
    ThreadSupervisor& operator=(const ThreadSupervisor&) = delete;

    [[nodiscard]] std::vector<ChildStatus> status() const override;
    [[nodiscard]] Result<void> add(ChildSpec spec) override;
    [[nodiscard]] Result<void> remove(std::string_view name) override;
    [[nodiscard]] Result<void> restart_all() override;
    void stop_restart() override;
    void stop() override;

  private:
    void run();
    void wait_for_news(Deadline until, std::vector<pollfd> fds, bool ask) const;
    void wake() const;
    /// With the lock, or before there is a thread.
    void place(ChildSpec spec) {
        Slot& slot = slots_.emplace_back();
        slot.spec = std::move(spec);
        slot.delay = options_.restart_min;
        slot.start_at = Deadline::at(clock_.now());
    }
    /// All that follow: with the lock, on the thread.
    void advance(Slot& slot, TimePoint now);
    void advance_replacement(Slot& slot, TimePoint now);
    void keep_running(Slot& slot, TimePoint now);
    void look_after(Slot& slot, std::optional<Running>& running, TimePoint now);
    void look_after_leaving(Slot& slot, TimePoint now);
    std::optional<Running> start(Slot& slot, TimePoint now);
    void lost(Slot& slot, TimePoint lived_from, TimePoint now);
    void dismiss(Slot& slot, std::optional<Running>& running, TimePoint now);
    [[nodiscard]] Deadline next_deadline(const Slot& slot) const;
    [[nodiscard]] ChildState state_of(const Slot& slot) const;

    const SupervisorOptions options_;
    const Clock& clock_;
    const OwnedFd wake_;
    std::vector<std::string> environment_;
    std::mutex restarting_;  ///< one restart_all() at a time
    std::mutex stopping_call_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;  ///< a replacement has its outcome
    std::list<Slot> slots_;
    bool stopping_ = false;
    bool restart_stopped_ = false;
    std::thread thread_;
};

Result<void> check(const ChildSpec& spec) {
    if (!spec.command.empty() && !spec.command[0].empty()) return {};
    return error(ErrorCode::kInvalidArgument, "the child process {} has no command", spec.name);
}

Deadline earlier(Deadline a, Deadline b) { return std::min(a, b); }

void ThreadSupervisor::run() {
    for (;;) {
        std::vector<pollfd> fds = {{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
        Deadline until;
        bool ask = false;
        {
            const std::lock_guard lock(mutex_);
            const TimePoint now = clock_.now();
            bool all_ended = true;
            for (Slot& slot : slots_) advance(slot, now);
            slots_.remove_if(
                [](const Slot& slot) { return slot.removed && slot.empty() && !slot.in_restart; });
            for (const Slot& slot : slots_) {
                all_ended = all_ended && slot.empty();
                until = earlier(until, next_deadline(slot));
                const auto watch = [&](const Running& r, bool may_tell) {
                    const auto add = [&](int fd) {
                        fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
                    };
                    add(r.process.end_fd());
                    if (may_tell) add(r.process.ready_fd());
                    ask = ask || r.process.end_fd() < 0;
                };
                if (slot.current) watch(*slot.current, true);
                if (slot.next) watch(*slot.next, true);
                for (const Running& r : slot.leaving) watch(r, false);
            }
            changed_.notify_all();
            if (stopping_ && all_ended) return;
        }
        wait_for_news(until, std::move(fds), ask);
    }
}

void ThreadSupervisor::wait_for_news(Deadline until, std::vector<pollfd> fds, bool ask) const {
    std::chrono::nanoseconds left = until.left(clock_.now());
    if (ask) left = std::min<std::chrono::nanoseconds>(left, kAskForEnd);
    constexpr auto kLongest = std::chrono::hours(1);
    // Rounded up: else the last millisecond would be spent in a busy loop.
    const auto wait =
        std::chrono::ceil<milliseconds>(std::min<std::chrono::nanoseconds>(left, kLongest));
    if (::poll(fds.data(), fds.size(), static_cast<int>(wait.count())) > 0 &&
        (fds[0].revents & POLLIN) != 0) {
        std::uint64_t count = 0;
        static_cast<void>(::read(wake_.get(), &count, sizeof count));
    }
}

void ThreadSupervisor::wake() const {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one));
}

void ThreadSupervisor::advance(Slot& slot, TimePoint now) {
    look_after_leaving(slot, now);
    look_after(slot, slot.next, now);
    look_after(slot, slot.current, now);
    if (stopping_ || slot.removed) {
        if (slot.current) dismiss(slot, slot.current, now);
        if (slot.next) dismiss(slot, slot.next, now);
    }
    advance_replacement(slot, now);
    if (!stopping_ && !slot.removed) keep_running(slot, now);
}

/// Takes note of what a process did: became ready, ended.
void ThreadSupervisor::look_after(Slot& slot, std::optional<Running>& running, TimePoint now) {
    if (!running) return;
    if (!running->ready && running->process.ready()) {
        running->ready = true;
        log_info("A child process is ready.",
                 {{"child", slot.spec.name},
                  {"pid", running->process.pid()},
                  {"took_ms", static_cast<std::int64_t>(to_ms(now - running->started))}});
    }
    const int pid = running->process.pid();
    const auto end = running->process.ended();
    if (!end) return;
    slot.last_end = *end;
    log_warn("A child process has ended.",
             {{"child", slot.spec.name}, {"pid", pid}, {"how", *end}});
    const TimePoint started = running->started;
    const bool hopeless =
        !running->ready && *end == "exit status " + std::to_string(options_.hopeless_status);
    slot.in_vain = hopeless ? slot.in_vain + 1 : 0;
    running.reset();
    if (&running == &slot.next) return;
    if (slot.next) {
        slot.current = std::move(slot.next);
        slot.next.reset();
        slot.promoted = true;
        return;
    }
    slot.promoted = false;
    lost(slot, started, now);
}

void ThreadSupervisor::look_after_leaving(Slot& slot, TimePoint now) {
    for (Running& r : slot.leaving) {
        const int pid = r.process.pid();
        if (const auto end = r.process.ended()) {
            slot.last_end = *end;
            log_info("A child process has ended as it was told.",
                     {{"child", slot.spec.name}, {"pid", pid}, {"how", *end}});
        } else if (r.kill_at.reached(now)) {
            log_warn("A child process did not end in its grace time and is killed.",
                     {{"child", slot.spec.name}, {"pid", pid}});
            r.process.signal(SIGKILL);
            r.kill_at = Deadline::never();
        }
    }
    std::erase_if(slot.leaving, [](const Running& r) { return r.process.pid() == 0; });
}

void ThreadSupervisor::lost(Slot& slot, TimePoint lived_from, TimePoint now) {
    if (now - lived_from >= options_.stable_after) slot.delay = options_.restart_min;
    slot.start_at = Deadline::after(now, slot.delay);
    if (stopping_ || slot.removed) return;
    if (slot.in_vain >= options_.hopeless_tries) {
        slot.given_up = true;
        slot.start_at = Deadline::never();
        log_error(
            "A child process says that its set-up is wrong, and is not started any more. What it "
            "found is in its log; once that is put right, restart.",
            {{"child", slot.spec.name}, {"times", slot.in_vain}});
        return;
    }
    log_info("A child process will be started again.",
             {{"child", slot.spec.name}, {"in_ms", slot.delay.count()}});
    slot.delay = std::min(slot.delay * 2, options_.restart_max);
}

std::optional<Running> ThreadSupervisor::start(Slot& slot, TimePoint now) {
    auto process = Process::start(slot.spec, environment_);
    if (!process) {
        slot.last_end = process.error().message;
        log_error("A child process can't be started.",
                  {{"child", slot.spec.name}, {"reason", process.error().message}});
        return std::nullopt;
    }
    log_info("A child process has been started.",
             {{"child", slot.spec.name}, {"pid", process->pid()}});
    return Running{.process = std::move(*process), .started = now, .ready = false, .kill_at = {}};
}

/// SIGTERM, and SIGKILL after the grace time; does not wait.
void ThreadSupervisor::dismiss(Slot& slot, std::optional<Running>& running, TimePoint now) {
    running->process.signal(SIGTERM);
    running->kill_at = Deadline::after(now, options_.grace);
    slot.leaving.push_back(std::move(*running));
    running.reset();
}

void ThreadSupervisor::keep_running(Slot& slot, TimePoint now) {
    if (slot.current || slot.next || !slot.start_at.reached(now)) return;
    if (!slot.last_end.empty()) ++slot.restarts;
    slot.current = start(slot, now);
    if (!slot.current) lost(slot, now, now);
}

void ThreadSupervisor::advance_replacement(Slot& slot, TimePoint now) {
    const auto finish = [&slot](Result<void> outcome) {
        slot.replacing = Replacing::kNone;
        slot.replaced = std::move(outcome);
    };
    const std::string& name = slot.spec.name;
    if (slot.replacing == Replacing::kNone) return;
    if (stopping_ || restart_stopped_ || slot.removed) {
        if (slot.replacing == Replacing::kStarting && slot.next) dismiss(slot, slot.next, now);
        return finish(error(ErrorCode::kCancelled, "the restart of {} was broken off", name));
    }
    if (slot.replacing == Replacing::kWanted) {
        slot.promoted = false;
        slot.in_vain = 0;
        slot.given_up = false;
        slot.next = start(slot, now);
        if (!slot.next) {
            return finish(
                error(ErrorCode::kUnavailable, "{} can't be started: {}", name, slot.last_end));
        }
        slot.ready_by = Deadline::after(now, options_.ready_within);
        slot.replacing = Replacing::kStarting;
    }
    if (slot.replacing == Replacing::kStarting) {
        const std::optional<Running>& fresh = slot.promoted ? slot.current : slot.next;
        if (!fresh) {
            return finish(error(ErrorCode::kUnavailable, "the new {} ended before it was ready: {}",
                                name, slot.last_end));
        }
        if (fresh->ready) {
            if (slot.next) {
                if (slot.current) dismiss(slot, slot.current, now);
                slot.current = std::move(slot.next);
                slot.next.reset();
            }
            slot.delay = options_.restart_min;
            slot.replacing = Replacing::kOldLeaving;
        } else if (slot.ready_by.reached(now)) {
            if (slot.next) dismiss(slot, slot.next, now);
            return finish(error(ErrorCode::kDeadlineExceeded,
                                "the new {} was not ready within {} ms", name,
                                options_.ready_within.count()));
        }
    }
    if (slot.replacing == Replacing::kOldLeaving && slot.leaving.empty()) finish({});
}

Deadline ThreadSupervisor::next_deadline(const Slot& slot) const {
    Deadline next;
    if (!stopping_ && !slot.removed && !slot.current && !slot.next) next = slot.start_at;
    if (slot.replacing == Replacing::kStarting) next = earlier(next, slot.ready_by);
    for (const Running& r : slot.leaving) next = earlier(next, r.kill_at);
    return next;
}

ChildState ThreadSupervisor::state_of(const Slot& slot) const {
    if (slot.removed && !stopping_) return ChildState::kStopping;
    if (stopping_) return slot.empty() ? ChildState::kStopped : ChildState::kStopping;
    if (slot.current) return slot.current->ready ? ChildState::kReady : ChildState::kStarting;
    if (slot.given_up) return ChildState::kStopped;
    return slot.last_end.empty() ? ChildState::kStarting : ChildState::kBackingOff;
}

std::vector<ChildStatus> ThreadSupervisor::status() const {
    const std::lock_guard lock(mutex_);
    std::vector<ChildStatus> out;
    for (const Slot& slot : slots_) {
        ChildStatus& s = out.emplace_back();
        s.name = slot.spec.name;
        s.pid = slot.current ? slot.current->process.pid() : 0;
        s.state = state_of(slot);
        s.restarts = slot.restarts;
        s.last_end = slot.last_end;
    }
    return out;
}

Result<void> ThreadSupervisor::add(ChildSpec spec) {
    if (auto ok = check(spec); !ok) return ok;
    const std::lock_guard lock(mutex_);
    if (stopping_) {
        return error(ErrorCode::kCancelled, "{} is not started: all are being ended", spec.name);
    }
    for (const Slot& slot : slots_) {
        if (slot.spec.name != spec.name) continue;
        return error(ErrorCode::kInvalidArgument, "there is a child process {} already", spec.name);
    }
    place(std::move(spec));
    wake();
    return {};
}

Result<void> ThreadSupervisor::remove(std::string_view name) {
    const std::lock_guard lock(mutex_);
    for (Slot& slot : slots_) {
        if (slot.spec.name != name || slot.removed) continue;
        slot.removed = true;
        wake();
        return {};
    }
    return error(ErrorCode::kNotFound, "there is no child process {}", name);
}

Result<void> ThreadSupervisor::restart_all() {
    const std::lock_guard one_at_a_time(restarting_);
    std::unique_lock lock(mutex_);
    for (Slot& slot : slots_) {
        if (stopping_ || restart_stopped_) {
            return error(ErrorCode::kCancelled, "the restart of {} was broken off", slot.spec.name);
        }
        if (slot.removed) continue;
        slot.replaced.reset();
        slot.replacing = Replacing::kWanted;
        slot.in_restart = true;
        wake();
        changed_.wait(lock, [&] { return slot.replaced.has_value(); });
        slot.in_restart = false;
        wake();  // it may have been removed meanwhile
        if (slot.removed) continue;
        if (auto outcome = std::move(*slot.replaced); !outcome) return outcome;
    }
    return {};
}

void ThreadSupervisor::stop_restart() {
    const std::lock_guard lock(mutex_);
    restart_stopped_ = true;
    wake();
}

void ThreadSupervisor::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        wake();
    }
    const std::lock_guard one_at_a_time(stopping_call_);
    if (thread_.joinable()) thread_.join();
}

}  // namespace

std::string_view to_string(ChildState state) {
    switch (state) {
        case ChildState::kStarting:
            return "starting";
        case ChildState::kReady:
            return "ready";
        case ChildState::kBackingOff:
            return "backing_off";
        case ChildState::kStopping:
            return "stopping";
        case ChildState::kStopped:
            return "stopped";
    }
    return "unknown";
}

Result<std::unique_ptr<Supervisor>> supervise(std::vector<ChildSpec> children,
                                              SupervisorOptions options, const Clock& clock) {
    std::set<std::string_view> names;
    for (const ChildSpec& spec : children) {
        if (auto ok = check(spec); !ok) return tl::unexpected(ok.error());
        if (!names.insert(spec.name).second) {
            return error(ErrorCode::kInvalidArgument, "two child processes have the name {}",
                         spec.name);
        }
    }
    if (options.restart_min < milliseconds(1) || options.restart_max < options.restart_min) {
        return error(ErrorCode::kInvalidArgument,
                     "the time before a restart must be at least 1 ms and at most its bound: {} "
                     "and {} ms were given",
                     options.restart_min.count(), options.restart_max.count());
    }
    OwnedFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (wake.get() < 0) {
        return error(ErrorCode::kExhausted, "no eventfd can be made: {}", std::strerror(errno));
    }
    return std::make_unique<ThreadSupervisor>(std::move(children), options, clock, std::move(wake));
}

}  // namespace stator::control
