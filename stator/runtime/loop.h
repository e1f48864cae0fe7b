#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace stator::runtime {

/// One thread with an event loop (Boost.Asio's io_context). What is made on a loop stays on it:
/// connections, timers and request state need no locks. Rooms that do sockets get the io_context
/// from runtime/asio.h.
class Loop {
  public:
    explicit Loop(std::string name);
    ~Loop();  ///< stop() must have been called
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    /// Starts the thread. Once.
    void start();
    /// Runs `f` on the loop's thread, soon, in order of posting. From any thread. False (and `f` is
    /// dropped) once the loop is stopped.
    bool post(std::function<void()> f);
    /// Runs `f` on the loop's thread at the end of the present turn, after everything that was
    /// ready; only on the loop's own thread. Used to write once per connection for many ready
    /// chunks.
    void at_turn_end(std::function<void()> f);
    /// Ends the loop after what is already posted (with the turn ends it asks for) and joins its
    /// thread; a loop that was never started drops its work. Not from the loop's own thread.
    /// Idempotent.
    void stop();
    [[nodiscard]] bool on_this_thread() const;

    struct Impl;
    [[nodiscard]] Impl& impl() { return *impl_; }

  private:
    std::unique_ptr<Impl> impl_;
};

/// A fixed set of loops, one thread each.
class LoopPool {
  public:
    LoopPool(std::size_t count, const std::string& name);
    ~LoopPool();
    void start();
    void stop();
    [[nodiscard]] std::size_t size() const { return loops_.size(); }
    [[nodiscard]] Loop& at(std::size_t i) { return *loops_[i]; }

  private:
    std::vector<std::unique_ptr<Loop>> loops_;
};

/// CPU cores this process may use: the smaller of its affinity mask and its cgroup's quota (v1 and
/// v2), at least 1.
[[nodiscard]] std::size_t usable_cores();

}  // namespace stator::runtime
