#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "stator/base/error.h"

namespace stator::events {

/// One thread that owns a ZeroMQ context's sockets: tasks from other threads, descriptors to watch,
/// and a tick. Tasks are few (per drain, not per message), so their queue needs no bound of its
/// own.
class SocketThread {
  public:
    /// Called when the descriptor is readable; true: there is more, call again after the others.
    using Handler = std::function<bool()>;
    using Task = std::function<void()>;

    /// Tasks may outlive the thread's owner: what a task's sender keeps. post() answers false once
    /// the thread stops, and the task is dropped.
    class Inbox {
      public:
        explicit Inbox(int wake_fd) : wake_fd_(wake_fd) {}
        bool post(Task task);

      private:
        friend class SocketThread;
        std::mutex mutex_;
        std::vector<Task> tasks_;
        int wake_fd_;
        bool closed_ = false;
    };

    static Result<std::unique_ptr<SocketThread>> start(const char* name,
                                                       std::chrono::milliseconds tick_every,
                                                       Task tick);
    ~SocketThread();

    [[nodiscard]] const std::shared_ptr<Inbox>& inbox() const { return inbox_; }
    /// Runs it on the thread and waits for its end; at once where the caller is the thread.
    void run(const Task& task);
    /// Runs what is posted, then ends the thread. Idempotent.
    void stop();

    // On the thread only.
    [[nodiscard]] std::uint64_t watch(int fd, Handler handler);
    void unwatch(std::uint64_t id, int fd);
    /// Calls the handler soon even if its descriptor says nothing.
    void again(std::uint64_t id) { again_.push_back(id); }

  private:
    SocketThread(int epoll_fd, int wake_fd, std::chrono::milliseconds tick_every, Task tick);
    void loop();
    void run_tasks();
    void call(std::uint64_t id);
    [[nodiscard]] bool closed();

    int epoll_fd_;
    int wake_fd_;
    std::chrono::milliseconds tick_every_;
    Task tick_;
    std::shared_ptr<Inbox> inbox_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Handler>> handlers_;
    std::vector<std::uint64_t> again_;
    std::uint64_t ids_ = 0;
    std::thread thread_;
};

}  // namespace stator::events
