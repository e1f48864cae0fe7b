// Real processes: small shell scripts, and this test itself as a supervisor that is killed.
#include "stator/control/supervisor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "stator/base/log.h"

namespace stator::control {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr std::string_view kTellReady = "echo ready > /proc/self/fd/$STATOR_READY_FD; ";
constexpr std::string_view kServe = "while :; do sleep 100 & wait; done";

/// Asks until it holds, 20 s at most.
template <typename F>
bool eventually(F holds) {
    const Deadline end = Deadline::after(Clock::real().now(), 20s);
    while (!end.reached(Clock::real().now())) {
        if (holds()) return true;
        std::this_thread::yield();
    }
    return false;
}

bool alive(int pid) { return ::kill(pid, 0) == 0; }

class SupervisorTest : public testing::Test {
  protected:
    SupervisorTest() {
        set_log(LogLevel::kOff, LogFormat::kText);
        std::string name = (fs::temp_directory_path() / "stator-control-XXXXXX").string();
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
        options_.restart_min = 10ms;
        options_.restart_max = 80ms;
        options_.grace = 10s;
    }
    ~SupervisorTest() override {
        supervisor_.reset();
        std::error_code ignored;
        fs::remove_all(folder_, ignored);
    }

    [[nodiscard]] std::string file(const std::string& name) const { return folder_ / name; }
    [[nodiscard]] static ChildSpec shell(std::string name, std::string script) {
        return {.name = std::move(name),
                .command = {"/bin/sh", "-c", std::move(script)},
                .environment = {}};
    }
    [[nodiscard]] static ChildSpec server(std::string name) {
        return shell(std::move(name), std::string(kTellReady) + std::string(kServe));
    }
    Supervisor& run(std::vector<ChildSpec> children) {
        auto made = supervise(std::move(children), options_);
        EXPECT_TRUE(made) << made.error().message;
        supervisor_ = std::move(*made);
        return *supervisor_;
    }
    [[nodiscard]] ChildStatus status(std::size_t i = 0) const { return supervisor_->status()[i]; }
    [[nodiscard]] bool becomes(ChildState state, std::size_t i = 0) const {
        return eventually([&] { return status(i).state == state; });
    }
    static std::string read(const std::string& path) {
        std::ifstream in(path);
        std::ostringstream out;
        out << in.rdbuf();
        return out.str();
    }
    static std::size_t lines(const std::string& path) {
        return static_cast<std::size_t>(std::ranges::count(read(path), '\n'));
    }

    fs::path folder_;
    SupervisorOptions options_;
    std::unique_ptr<Supervisor> supervisor_;
};

TEST_F(SupervisorTest, RunsAndStops) {
    run({server("a"), server("b")});
    ASSERT_TRUE(becomes(ChildState::kReady, 0));
    ASSERT_TRUE(becomes(ChildState::kReady, 1));
    const int pid = status().pid;
    EXPECT_GT(pid, 0);
    EXPECT_EQ(::getpgid(pid), pid);
    EXPECT_EQ(status(1).name, "b");
    EXPECT_EQ(status().restarts, 0U);
    supervisor_->stop();
    EXPECT_EQ(status().state, ChildState::kStopped);
    EXPECT_EQ(status().pid, 0);
    EXPECT_EQ(status().last_end, "signal 15 (Terminated)");
    EXPECT_FALSE(alive(pid));
    supervisor_->stop();
}

TEST_F(SupervisorTest, RestartsTheKilled) {
    run({server("a"), server("b")});
    ASSERT_TRUE(becomes(ChildState::kReady, 0));
    ASSERT_TRUE(becomes(ChildState::kReady, 1));
    const ChildStatus before = status();
    const int other = status(1).pid;
    ::kill(before.pid, SIGKILL);
    ASSERT_TRUE(eventually([&] {
        const ChildStatus now = status();
        return now.state == ChildState::kReady && now.pid != before.pid;
    }));
    EXPECT_EQ(status().restarts, 1U);
    EXPECT_EQ(status().last_end, "signal 9 (Killed)");
    EXPECT_EQ(status(1).pid, other);
    EXPECT_EQ(status(1).restarts, 0U);
}

TEST_F(SupervisorTest, BacksOffDoublingUpToTheBound) {
    // Each life leaves a line with the time at which it began, in ns.
    run({shell("a", "date +%s%N >> " + file("lives") + "; exit 3")});
    ASSERT_TRUE(eventually([&] { return lines(file("lives")) >= 7; }));
    EXPECT_EQ(status().last_end, "exit status 3");
    supervisor_->stop();
    std::istringstream in(read(file("lives")));
    std::vector<std::int64_t> at;
    for (std::int64_t t = 0; in >> t;) at.push_back(t);
    // Waits of 10, 20, 40, 80, 80, 80 ms and what it takes to start: never shorter.
    const std::int64_t least[] = {10, 20, 40, 80, 80, 80};
    for (std::size_t i = 0; i < std::size(least); ++i) {
        EXPECT_GE(at[i + 1] - at[i], (least[i] - 2) * 1'000'000) << i;
    }
    // Unbounded doubling would make 10 + 20 + … + 320 ms.
    EXPECT_GE(status().restarts, 6U);
}

TEST_F(SupervisorTest, OneThatSaysThatItIsOfNoUseIsGivenUp) {
    options_.restart_min = 1ms;
    options_.restart_max = 2ms;
    options_.hopeless_tries = 3;
    run({shell("a", "echo >> " + file("lives") + "; exit 78")});
    ASSERT_TRUE(eventually([&] { return status().state == ChildState::kStopped; }));
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(lines(file("lives")), 3U);
    EXPECT_EQ(status().last_end, "exit status 78");
    // Asked to, it is tried again.
    EXPECT_FALSE(supervisor_->restart_all());
    EXPECT_GE(lines(file("lives")), 4U);
}

TEST_F(SupervisorTest, TheBoundHolds) {
    options_.restart_min = 1ms;
    options_.restart_max = 2ms;
    run({shell("a", "exit 1")});
    // 20 restarts with unbounded doubling would take 17 minutes.
    EXPECT_TRUE(eventually([&] { return status().restarts >= 20; }));
}

TEST_F(SupervisorTest, AStableLifeResetsTheBackOff) {
    options_.restart_min = 1ms;
    options_.restart_max = 600'000ms;
    options_.stable_after = 0ms;
    run({shell("a", "exit 1")});
    // Without the reset the 20th restart would come after minutes.
    EXPECT_TRUE(eventually([&] { return status().restarts >= 20; }));
}

TEST_F(SupervisorTest, WhatCantBeRunIsTriedAgain) {
    const std::string program = file("program");
    run({{.name = "a", .command = {program}, .environment = {}}});
    ASSERT_TRUE(eventually([&] { return status().restarts >= 2; }));
    EXPECT_THAT(status().last_end, HasSubstr("can't be run: No such file or directory"));
    {
        std::ofstream out(program + ".new");
        out << "#!/bin/sh\n" << kTellReady << kServe << "\n";
    }
    fs::permissions(program + ".new", fs::perms::owner_all);
    fs::rename(program + ".new", program);
    EXPECT_TRUE(becomes(ChildState::kReady));
}

TEST_F(SupervisorTest, ChildrenGetTheirEnvironmentAndNoDescriptors) {
    // Not close-on-exec, as careless libraries open them.
    const int ours = ::open("/dev/null", O_RDONLY);  // NOLINT(android-cloexec-open)
    ASSERT_GE(ours, 0);
    ChildSpec spec =
        shell("a", "echo \"$STATOR_TEST_VALUE\" > " + file("out") + "; [ -e /proc/self/fd/" +
                       std::to_string(ours) + " ] && echo leaked >> " + file("out") + "; " +
                       std::string(kTellReady) + std::string(kServe));
    spec.environment["STATOR_TEST_VALUE"] = "a b\"c";
    run({spec});
    ASSERT_TRUE(becomes(ChildState::kReady));
    EXPECT_EQ(read(file("out")), "a b\"c\n");
    ::close(ours);
}

TEST_F(SupervisorTest, ParentsIgnoredAndBlockedSignalsAreNotTheChilds) {
    const auto old = ::signal(SIGPIPE, SIG_IGN);
    sigset_t blocked;
    sigset_t before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    run({shell("a", "grep -E '^Sig(Blk|Ign)' /proc/self/status > " + file("out") + "; " +
                        std::string(kTellReady) + std::string(kServe))});
    ASSERT_TRUE(becomes(ChildState::kReady));
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::signal(SIGPIPE, old);
    EXPECT_EQ(read(file("out")), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

/// Who begins to serve writes its process id into `serving`; who is told to end keeps what it finds
/// there.
TEST_F(SupervisorTest, RestartAllReplacesWithoutAGap) {
    const std::string script = "trap 'cat " + file("serving") + " > " + file("seen.") +
                               "$$; exit 0' TERM; sleep 0.05; echo $$ > " + file("serving") + "; " +
                               std::string(kTellReady) + std::string(kServe);
    run({shell("a", script), server("b")});
    ASSERT_TRUE(becomes(ChildState::kReady, 0));
    ASSERT_TRUE(becomes(ChildState::kReady, 1));
    const int old_a = status(0).pid;
    const int old_b = status(1).pid;
    std::atomic<bool> done{false};
    bool gap = false;
    std::thread watch([&] {
        while (!done) {
            for (const ChildStatus& s : supervisor_->status()) {
                gap = gap || s.state != ChildState::kReady;
            }
            std::this_thread::yield();
        }
    });
    const auto restarted = supervisor_->restart_all();
    done = true;
    watch.join();
    ASSERT_TRUE(restarted) << restarted.error().message;
    EXPECT_FALSE(gap);
    EXPECT_NE(status(0).pid, old_a);
    EXPECT_NE(status(1).pid, old_b);
    EXPECT_FALSE(alive(old_a));
    EXPECT_FALSE(alive(old_b));
    EXPECT_EQ(status(0).restarts, 0U);
    // When the old one was told to end, the new one served already.
    EXPECT_EQ(read(file("seen." + std::to_string(old_a))), std::to_string(status(0).pid) + "\n");
}

TEST_F(SupervisorTest, AnewOneThatNeverGetsReadyStopsTheRestart) {
    options_.ready_within = 50ms;
    // The first life serves, later ones only sleep.
    const std::string script = "if [ -e " + file("lived") + " ]; then " + std::string(kServe) +
                               "; fi; : > " + file("lived") + "; " + std::string(kTellReady) +
                               std::string(kServe);
    run({shell("a", script), server("b")});
    ASSERT_TRUE(becomes(ChildState::kReady, 0));
    ASSERT_TRUE(becomes(ChildState::kReady, 1));
    const int a = status(0).pid;
    const int b = status(1).pid;
    const auto restarted = supervisor_->restart_all();
    ASSERT_FALSE(restarted);
    EXPECT_EQ(restarted.error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_THAT(restarted.error().message, HasSubstr("the new a was not ready within 50 ms"));
    EXPECT_EQ(status(0).pid, a);
    EXPECT_EQ(status(0).state, ChildState::kReady);
    EXPECT_EQ(status(1).pid, b);
    EXPECT_TRUE(alive(a));
}

TEST_F(SupervisorTest, AnewOneThatDiesStopsTheRestart) {
    const std::string script = "[ -e " + file("lived") + " ] && exit 7; : > " + file("lived") +
                               "; " + std::string(kTellReady) + std::string(kServe);
    run({shell("a", script)});
    ASSERT_TRUE(becomes(ChildState::kReady));
    const int a = status().pid;
    const auto restarted = supervisor_->restart_all();
    ASSERT_FALSE(restarted);
    EXPECT_THAT(restarted.error().message, HasSubstr("ended before it was ready: exit status 7"));
    EXPECT_EQ(status().pid, a);
    EXPECT_EQ(status().state, ChildState::kReady);
}

TEST_F(SupervisorTest, TheOldOneMayDieWhileTheNewOneStarts) {
    // A later life waits for `go` before it is ready.
    const std::string script = "if [ -e " + file("lived") + " ]; then echo $$ > " + file("second") +
                               "; while [ ! -e " + file("go") +
                               " ]; do sleep 0.01; done; fi; : > " + file("lived") + "; " +
                               std::string(kTellReady) + std::string(kServe);
    run({shell("a", script)});
    ASSERT_TRUE(becomes(ChildState::kReady));
    const int old = status().pid;
    Result<void> restarted = error(ErrorCode::kUnknown, "not yet");
    std::thread caller([&] { restarted = supervisor_->restart_all(); });
    EXPECT_TRUE(eventually([&] { return read(file("second")).ends_with('\n'); }));
    ::kill(old, SIGKILL);
    EXPECT_TRUE(eventually([&] { return status().pid != old; }));
    std::ofstream(file("go")) << "go";
    caller.join();
    EXPECT_TRUE(restarted) << restarted.error().message;
    // The one that was starting took the place: no third.
    EXPECT_EQ(std::to_string(status().pid) + "\n", read(file("second")));
    EXPECT_EQ(status().state, ChildState::kReady);
}

TEST_F(SupervisorTest, ARestartCanBeBrokenOff) {
    const std::string script = "if [ -e " + file("lived") + " ]; then : > " + file("second") +
                               "; " + std::string(kServe) + "; fi; : > " + file("lived") + "; " +
                               std::string(kTellReady) + std::string(kServe);
    run({shell("a", script)});
    ASSERT_TRUE(becomes(ChildState::kReady));
    const int a = status().pid;
    Result<void> restarted;
    std::thread caller([&] { restarted = supervisor_->restart_all(); });
    EXPECT_TRUE(eventually([&] { return fs::exists(file("second")); }));
    supervisor_->stop_restart();
    caller.join();
    ASSERT_FALSE(restarted);
    EXPECT_EQ(restarted.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(status().pid, a);
    EXPECT_EQ(supervisor_->restart_all().error().code, ErrorCode::kCancelled);
}

TEST_F(SupervisorTest, StopEndsARestart) {
    const std::string script = "if [ -e " + file("lived") + " ]; then : > " + file("second") +
                               "; " + std::string(kServe) + "; fi; : > " + file("lived") + "; " +
                               std::string(kTellReady) + std::string(kServe);
    run({shell("a", script)});
    ASSERT_TRUE(becomes(ChildState::kReady));
    Result<void> restarted;
    std::thread caller([&] { restarted = supervisor_->restart_all(); });
    EXPECT_TRUE(eventually([&] { return fs::exists(file("second")); }));
    supervisor_->stop();
    caller.join();
    ASSERT_FALSE(restarted);
    EXPECT_EQ(restarted.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(status().state, ChildState::kStopped);
}

TEST_F(SupervisorTest, ChildrenComeAndGo) {
    const std::string script = "trap 'echo bye > " + file("bye") + "; exit 0' TERM; " +
                               std::string(kTellReady) + std::string(kServe);
    run({server("a")});
    ASSERT_TRUE(supervisor_->add(shell("b", script)));
    ASSERT_TRUE(becomes(ChildState::kReady, 1));
    EXPECT_EQ(supervisor_->add(server("b")).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(supervisor_->add({.name = "c", .command = {}, .environment = {}}).error().code,
              ErrorCode::kInvalidArgument);
    const int a = status(0).pid;
    const int b = status(1).pid;
    ASSERT_TRUE(supervisor_->remove("b"));
    ASSERT_TRUE(eventually([&] { return supervisor_->status().size() == 1; }));
    EXPECT_EQ(read(file("bye")), "bye\n");
    EXPECT_FALSE(alive(b));
    EXPECT_EQ(status(0).pid, a);
    EXPECT_EQ(status(0).restarts, 0U);
    EXPECT_EQ(supervisor_->remove("b").error().code, ErrorCode::kNotFound);
    // The name is free again.
    ASSERT_TRUE(supervisor_->add(server("b")));
    EXPECT_TRUE(becomes(ChildState::kReady, 1));
    supervisor_->stop();
    EXPECT_EQ(supervisor_->add(server("d")).error().code, ErrorCode::kCancelled);
}

TEST_F(SupervisorTest, TheRemovedAreNotStartedAgain) {
    options_.restart_min = 1ms;
    run({shell("a", "exit 1"), server("b")});
    ASSERT_TRUE(eventually([&] { return status(0).restarts >= 2; }));
    ASSERT_TRUE(supervisor_->remove("a"));
    ASSERT_TRUE(eventually([&] { return supervisor_->status().size() == 1; }));
    EXPECT_EQ(status(0).name, "b");
}

TEST_F(SupervisorTest, OneMayBeRemovedWhileAllAreRestarted) {
    const std::string script = "if [ -e " + file("lived") + " ]; then : > " + file("second") +
                               "; " + std::string(kServe) + "; fi; : > " + file("lived") + "; " +
                               std::string(kTellReady) + std::string(kServe);
    run({shell("a", script), server("b")});
    ASSERT_TRUE(becomes(ChildState::kReady, 0));
    ASSERT_TRUE(becomes(ChildState::kReady, 1));
    const int b = status(1).pid;
    Result<void> restarted = error(ErrorCode::kUnknown, "not yet");
    std::thread caller([&] { restarted = supervisor_->restart_all(); });
    EXPECT_TRUE(eventually([&] { return fs::exists(file("second")); }));
    EXPECT_TRUE(supervisor_->remove("a"));
    caller.join();
    EXPECT_TRUE(restarted) << restarted.error().message;
    EXPECT_TRUE(eventually([&] { return supervisor_->status().size() == 1; }));
    EXPECT_NE(status(0).pid, b);
}

TEST_F(SupervisorTest, StopKillsTheStubbornAndTheirGroups) {
    options_.grace = 50ms;
    run({shell("a", "trap '' TERM; sleep 1000 & echo $! > " + file("grandchild") + "; " +
                        std::string(kTellReady) + "while :; do sleep 0.01; done")});
    ASSERT_TRUE(becomes(ChildState::kReady));
    const int pid = status().pid;
    const int grandchild = std::stoi(read(file("grandchild")));
    ASSERT_TRUE(alive(grandchild));
    supervisor_->stop();
    EXPECT_EQ(status().last_end, "signal 9 (Killed)");
    EXPECT_FALSE(alive(pid));
    // Reaped by init, whenever that is: gone, or dead and not reaped yet.
    EXPECT_TRUE(eventually([&] {
        const std::string stat = read("/proc/" + std::to_string(grandchild) + "/stat");
        return stat.empty() || stat.find(") Z") != std::string::npos;
    }));
}

TEST_F(SupervisorTest, StopEndsAChildThatIsStopped) {
    options_.grace = 50ms;
    run({shell("a", "trap '' TERM; " + std::string(kTellReady) + std::string(kServe))});
    ASSERT_TRUE(becomes(ChildState::kReady));
    ::kill(-status().pid, SIGSTOP);
    supervisor_->stop();
    EXPECT_EQ(status().last_end, "signal 9 (Killed)");
}

TEST_F(SupervisorTest, StopWhileBackingOff) {
    options_.restart_min = 3'600'000ms;
    options_.restart_max = 3'600'000ms;
    run({shell("a", "exit 1")});
    ASSERT_TRUE(becomes(ChildState::kBackingOff));
    supervisor_->stop();
    EXPECT_EQ(status().state, ChildState::kStopped);
}

TEST_F(SupervisorTest, WrongSpecsAreErrors) {
    EXPECT_FALSE(supervise({{.name = "a", .command = {}, .environment = {}}}, options_));
    EXPECT_FALSE(supervise({server("a"), server("a")}, options_));
    options_.restart_max = 1ms;
    EXPECT_FALSE(supervise({server("a")}, options_));
}

TEST_F(SupervisorTest, LeavesNoDescriptorsBehind) {
    const auto open_descriptors = [] {
        return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
    };
    const auto before = open_descriptors();
    run({server("a"), shell("b", "exit 1")});
    ASSERT_TRUE(becomes(ChildState::kReady));
    ASSERT_TRUE(eventually([&] { return status(1).restarts >= 5; }));
    ASSERT_FALSE(supervisor_->restart_all() && status(1).state == ChildState::kReady);
    supervisor_.reset();
    EXPECT_EQ(open_descriptors(), before);
}

/// Not a test of its own: what KilledSupervisorsLeaveNoOrphans kills.
TEST(SupervisorProcess, DISABLED_Runs) {
    const char* folder = std::getenv("STATOR_TEST_FOLDER");
    ASSERT_NE(folder, nullptr);
    const std::string script = "echo $$ > " + std::string(folder) + "/$NAME; " +
                               std::string(kTellReady) + "trap '' TERM HUP INT; exec sleep 1000";
    std::vector<ChildSpec> children;
    for (const char* name : {"a", "b"}) {
        children.push_back(
            {.name = name, .command = {"/bin/sh", "-c", script}, .environment = {{"NAME", name}}});
    }
    const auto supervisor = supervise(children, {});
    ASSERT_TRUE(supervisor);
    ASSERT_TRUE(eventually([&] {
        const auto all = (*supervisor)->status();
        return std::ranges::all_of(all,
                                   [](const auto& s) { return s.state == ChildState::kReady; });
    }));
    std::ofstream(std::string(folder) + "/ready") << "ready\n";
    for (;;) ::pause();
}

TEST_F(SupervisorTest, KilledSupervisorsLeaveNoOrphans) {
    // Orphans become ours, so that their end can be seen for certain.
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    ::setenv("STATOR_TEST_FOLDER", folder_.c_str(), 1);
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::execl("/proc/self/exe", "control_test", "--gtest_filter=SupervisorProcess.DISABLED_Runs",
                "--gtest_also_run_disabled_tests", nullptr);
        ::_exit(127);
    }
    EXPECT_TRUE(eventually([&] { return read(file("ready")) == "ready\n"; }));
    ::kill(pid, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    for (const char* name : {"a", "b"}) {
        const int child = std::stoi(read(file(name)));
        const bool gone = eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; });
        EXPECT_TRUE(gone);
        if (!gone) ::kill(child, SIGKILL);
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    }
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    ::unsetenv("STATOR_TEST_FOLDER");
}

/// Not a test of its own either: a program that tells when it serves.
TEST(SupervisorProcess, DISABLED_TellsReady) {
    tell_ready();
    tell_ready();
    for (;;) ::pause();
}

TEST_F(SupervisorTest, ProgramsTellByTellReady) {
    run({{.name = "a",
          .command = {"/proc/self/exe", "--gtest_filter=SupervisorProcess.DISABLED_TellsReady",
                      "--gtest_also_run_disabled_tests"},
          .environment = {}}});
    EXPECT_TRUE(becomes(ChildState::kReady));
}

TEST(TellReady, IgnoresForeignNumbers) {
    for (const char* value : {"", "x", "-1", "1", "99999", "0"}) {
        ::setenv("STATOR_READY_FD", value, 1);
        tell_ready();
    }
    ::unsetenv("STATOR_READY_FD");
    EXPECT_GE(::fcntl(STDOUT_FILENO, F_GETFD), 0);
}

}  // namespace
}  // namespace stator::control
