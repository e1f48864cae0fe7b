#include "stator/events/socket_thread.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <future>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/clock.h"

namespace stator::events {
namespace {

constexpr std::size_t kEventsPerWait = 256;

void wake(int fd) {
    const std::uint64_t one = 1;
    // Only a counter at its maximum fails, and then the reader is awake.
    [[maybe_unused]] const auto n = ::write(fd, &one, sizeof(one));
}

}  // namespace

bool SocketThread::Inbox::post(Task task) {
    const std::scoped_lock lock(mutex_);
    if (closed_) return false;
    tasks_.push_back(std::move(task));
    // Under the lock, because the descriptor closes under it.
    if (tasks_.size() == 1) wake(wake_fd_);
    return true;
}

Result<std::unique_ptr<SocketThread>> SocketThread::start(const char* name,
                                                          std::chrono::milliseconds tick_every,
                                                          Task tick) {
    const int epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    const int wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.u64 = 0;
    if (epoll_fd < 0 || wake_fd < 0 || ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &e) != 0) {
        const int why = errno;
        if (epoll_fd >= 0) ::close(epoll_fd);
        if (wake_fd >= 0) ::close(wake_fd);
        return error(ErrorCode::kExhausted, "no descriptors for the thread of {}: {}", name,
                     std::strerror(why));
    }
    std::unique_ptr<SocketThread> out(
        new SocketThread(epoll_fd, wake_fd, tick_every, std::move(tick)));
    SocketThread* raw = out.get();
    out->thread_ = std::thread([raw] { raw->loop(); });
    ::pthread_setname_np(out->thread_.native_handle(), name);
    return out;
}

SocketThread::SocketThread(int epoll_fd, int wake_fd, std::chrono::milliseconds tick_every,
                           Task tick)
    : epoll_fd_(epoll_fd),
      wake_fd_(wake_fd),
      tick_every_(tick_every),
      tick_(std::move(tick)),
      inbox_(std::make_shared<Inbox>(wake_fd)) {}

SocketThread::~SocketThread() {
    stop();
    ::close(epoll_fd_);
    ::close(wake_fd_);
}

void SocketThread::stop() {
    {
        const std::scoped_lock lock(inbox_->mutex_);
        if (!inbox_->closed_) {
            inbox_->closed_ = true;
            wake(wake_fd_);
        }
    }
    if (thread_.joinable()) thread_.join();
}

void SocketThread::run(const Task& task) {
    if (std::this_thread::get_id() == thread_.get_id()) {
        task();
        return;
    }
    std::promise<void> done;
    const bool posted = inbox_->post([&] {
        task();
        done.set_value();
    });
    STATOR_CHECK(posted, "the host of these sockets has stopped");
    done.get_future().wait();
}

std::uint64_t SocketThread::watch(int fd, Handler handler) {
    const std::uint64_t id = ++ids_;
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.u64 = id;
    STATOR_CHECK(::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &e) == 0,
                 "a socket's descriptor can be watched");
    handlers_.emplace(id, std::make_shared<Handler>(std::move(handler)));
    again(id);  // what came before the descriptor was watched says nothing any more
    return id;
}

void SocketThread::unwatch(std::uint64_t id, int fd) {
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
    handlers_.erase(id);
}

void SocketThread::call(std::uint64_t id) {
    const auto found = handlers_.find(id);
    if (found == handlers_.end()) return;
    const auto handler = found->second;  // it may unwatch itself
    if ((*handler)()) again(id);
}

void SocketThread::run_tasks() {
    std::vector<Task> tasks;
    {
        const std::scoped_lock lock(inbox_->mutex_);
        std::uint64_t n = 0;
        [[maybe_unused]] const auto read = ::read(wake_fd_, &n, sizeof(n));
        tasks.swap(inbox_->tasks_);
    }
    for (const Task& task : tasks) task();
}

bool SocketThread::closed() {
    const std::scoped_lock lock(inbox_->mutex_);
    return inbox_->closed_ && inbox_->tasks_.empty();
}

void SocketThread::loop() {
    std::array<epoll_event, kEventsPerWait> events{};
    TimePoint next_tick = Clock::real().now() + tick_every_;
    while (!closed()) {
        std::vector<std::uint64_t> again;
        again.swap(again_);
        const TimePoint now = Clock::real().now();
        const auto until = std::chrono::ceil<std::chrono::milliseconds>(next_tick - now).count();
        const int wait = again.empty() ? static_cast<int>(std::max<std::int64_t>(until, 0)) : 0;
        const int n = ::epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), wait);
        for (int i = 0; i < n; ++i) {
            const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
            if (id == 0) {
                run_tasks();
            } else if (std::ranges::find(again, id) == again.end()) {
                call(id);
            }
        }
        for (const std::uint64_t id : again) call(id);
        if (Clock::real().now() >= next_tick) {
            tick_();
            next_tick = Clock::real().now() + tick_every_;
        }
    }
}

}  // namespace stator::events
