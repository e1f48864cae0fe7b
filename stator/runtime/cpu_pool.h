#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace stator::runtime {

/// A few threads for work that would hold up a loop (tokenising a long prompt). Bounded: a full
/// queue refuses, and counts it. Work hands its result back with Loop::post. Thread-safe.
class CpuPool {
  public:
    /// `threads` is at least 1. At most `max_queued` pieces of work wait.
    CpuPool(std::size_t threads, std::size_t max_queued, const std::string& name);
    ~CpuPool();  ///< stops
    CpuPool(const CpuPool&) = delete;
    CpuPool& operator=(const CpuPool&) = delete;

    /// False, and `f` is dropped, where the queue is full or the pool has stopped. `f` must not
    /// throw and must not own the pool.
    [[nodiscard]] bool try_submit(std::function<void()> f);

    /// Drops what has not begun, waits for what has. Idempotent. Not from the pool's own threads.
    void stop();

    [[nodiscard]] std::size_t queued() const;
    /// How many pieces of work were refused because the queue was full.
    [[nodiscard]] std::uint64_t refused() const;

  private:
    void run();

    const std::size_t max_queued_;
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    std::uint64_t refused_ = 0;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace stator::runtime
