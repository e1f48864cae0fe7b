#include "stator/media/helper_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

namespace stator::media {
namespace {

constexpr int kAskPeriod_ms = 20;

tl::unexpected<Error> broke() {
    return error(ErrorCode::kInternal, "the decoding process ended unexpectedly");
}

/// What posix_spawn() wants, freed in the end.
struct SpawnPlan {
    posix_spawn_file_actions_t actions{};
    posix_spawnattr_t attributes{};
    SpawnPlan() {
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
    }
    ~SpawnPlan() {
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
    }
    SpawnPlan(const SpawnPlan&) = delete;
    SpawnPlan& operator=(const SpawnPlan&) = delete;
};

/// 0, or an errno.
int spawn(const std::string& program, int socket, pid_t& pid) {
    SpawnPlan plan;
    posix_spawn_file_actions_adddup2(&plan.actions, socket, 0);
    posix_spawn_file_actions_addopen(&plan.actions, 1, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&plan.actions, 1, 2);
    posix_spawn_file_actions_addclosefrom_np(&plan.actions, 3);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&plan.attributes, &none);
    posix_spawnattr_setsigdefault(&plan.attributes, &all);
    // A group of its own: Ctrl-C in the terminal is the server's to handle.
    posix_spawnattr_setpgroup(&plan.attributes, 0);
    posix_spawnattr_setflags(
        &plan.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::string name = program;
    std::array<char*, 2> arguments = {name.data(), nullptr};
    std::array<char*, 1> environment = {nullptr};
    return ::posix_spawn(&pid, program.c_str(), &plan.actions, &plan.attributes, arguments.data(),
                         environment.data());
}

bool makes_sense(const helper::Reply& reply, const helper::Request& request) {
    if (reply.magic != helper::kMagic) return false;
    if (reply.outcome != helper::Outcome::kOk) return reply.pixel_bytes == 0;
    const std::uint64_t frame = std::uint64_t{reply.width} * reply.height * 3;
    return reply.frames > 0 && reply.frames <= std::max(1U, request.limits.max_frames) &&
           frame > 0 && frame <= request.limits.max_bytes &&
           frame * reply.frames == reply.pixel_bytes &&
           reply.pixel_bytes <= request.limits.max_bytes;
}

}  // namespace

Result<std::unique_ptr<HelperProcess>> HelperProcess::start(const std::string& program,
                                                            const Clock& clock, Deadline deadline) {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
        return error(ErrorCode::kExhausted, "no socket for a decoding process: errno {}", errno);
    }
    runtime::Descriptor ours(pair[0]);
    runtime::Descriptor theirs(pair[1]);
    ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
    pid_t pid = -1;
    if (const int reason = spawn(program, theirs.get(), pid); reason != 0) {
        return error(ErrorCode::kUnavailable, "can't start the decoding process {}: errno {}",
                     program, reason);
    }
    std::unique_ptr<HelperProcess> out(new HelperProcess(pid, ours.release(), clock));
    // So that its leaving is seen.
    (void)theirs.close();
    helper::Hello hello;
    const std::atomic<bool> never{false};
    if (!out->receive(&hello, sizeof hello, deadline, never) || hello.magic != helper::kMagic) {
        return error(ErrorCode::kUnavailable,
                     "the decoding process {} does not work here; it needs a kernel with seccomp",
                     program);
    }
    return out;
}

HelperProcess::~HelperProcess() {
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
}

Result<void> HelperProcess::wait(short events, Deadline deadline,
                                 const std::atomic<bool>& cancelled) const {
    for (;;) {
        if (cancelled.load(std::memory_order_relaxed)) {
            return error(ErrorCode::kCancelled, "the client left");
        }
        const TimePoint now = clock_.now();
        if (deadline.reached(now)) {
            return error(ErrorCode::kDeadlineExceeded, "takes too long to decode");
        }
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline.left(now)).count();
        pollfd what{.fd = socket_.get(), .events = events, .revents = 0};
        if (::poll(&what, 1, static_cast<int>(std::clamp<std::int64_t>(left, 1, kAskPeriod_ms))) >
            0) {
            return {};
        }
    }
}

Result<void> HelperProcess::send(std::string_view bytes, Deadline deadline,
                                 const std::atomic<bool>& cancelled) const {
    while (!bytes.empty()) {
        const ssize_t n = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n > 0) {
            bytes.remove_prefix(static_cast<std::size_t>(n));
        } else if (errno == EAGAIN || errno == EINTR) {
            if (auto ready = wait(POLLOUT, deadline, cancelled); !ready) return ready;
        } else {
            return broke();
        }
    }
    return {};
}

Result<void> HelperProcess::receive(void* to, std::size_t count, Deadline deadline,
                                    const std::atomic<bool>& cancelled) const {
    auto* at = static_cast<char*>(to);
    while (count > 0) {
        const ssize_t n = ::recv(socket_.get(), at, count, 0);
        if (n > 0) {
            at += n;
            count -= static_cast<std::size_t>(n);
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (auto ready = wait(POLLIN, deadline, cancelled); !ready) return ready;
        } else {
            return broke();
        }
    }
    return {};
}

Result<HelperProcess::Answer> HelperProcess::decode(const helper::Request& request,
                                                    std::string_view bytes, Deadline deadline,
                                                    const std::atomic<bool>& cancelled) {
    ++items_;
    const std::string_view head(reinterpret_cast<const char*>(&request), sizeof request);
    Answer out;
    auto done = send(head, deadline, cancelled);
    if (done) done = send(bytes, deadline, cancelled);
    if (done) done = receive(&out.reply, sizeof out.reply, deadline, cancelled);
    if (done && !makes_sense(out.reply, request)) done = broke();
    if (!done) return tl::unexpected<Error>(std::move(done.error()));
    if (out.reply.outcome != helper::Outcome::kOk) return out;
    protocol::MediaContent& content = out.content;
    content.kind = static_cast<protocol::MediaContent::Kind>(request.kind);
    content.width = out.reply.width;
    content.height = out.reply.height;
    content.frames = out.reply.frames;
    if (content.kind == protocol::MediaContent::Kind::kVideo) {
        content.frame_ms.resize(content.frames);
        done = receive(content.frame_ms.data(), content.frames * sizeof(std::uint32_t), deadline,
                       cancelled);
    }
    if (done) {
        content.pixels.resize(out.reply.pixel_bytes);
        done = receive(content.pixels.data(), content.pixels.size(), deadline, cancelled);
    }
    if (!done) return tl::unexpected<Error>(std::move(done.error()));
    return out;
}

}  // namespace stator::media
