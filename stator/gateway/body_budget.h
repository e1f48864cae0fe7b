#pragma once

#include <atomic>
#include <cstddef>

namespace stator::gateway {

/// Bounds what all streams together keep of bodies. Any thread.
class BodyBudget {
  public:
    explicit BodyBudget(std::size_t most) : most_(most) {}
    /// False: it would be too much, and nothing is taken.
    [[nodiscard]] bool take(std::size_t bytes) {
        if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= most_) return true;
        used_.fetch_sub(bytes, std::memory_order_relaxed);
        return false;
    }
    void give_back(std::size_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }
    [[nodiscard]] std::size_t used() const { return used_.load(std::memory_order_relaxed); }

  private:
    const std::size_t most_;
    std::atomic<std::size_t> used_{0};
};

}  // namespace stator::gateway
