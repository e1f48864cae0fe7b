#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace stator::forecast {

/// The horizons at which forecasts are made, kept and held against what came, in windows. What lies
/// between is interpolated; beyond the last it stays.
inline constexpr std::array<int, 10> kHorizons{1, 2, 3, 4, 6, 8, 12, 16, 24, 48};

/// A ring of what was said at one horizon, as long as the horizon, so that its oldest is about the
/// window that comes next.
template <typename T>
class Pending {
  public:
    explicit Pending(int steps) : steps_(static_cast<std::size_t>(steps)), items_(steps_) {}
    /// What was said of the window that comes next; null as long as nothing was.
    [[nodiscard]] const T* due() const { return size_ == steps_ ? &items_[next_] : nullptr; }
    /// One window passed and `item` was said behind it.
    void push(const T& item) {
        items_[next_] = item;
        next_ = (next_ + 1) % steps_;
        if (size_ < steps_) ++size_;
    }

  private:
    std::size_t steps_;
    std::size_t next_ = 0;
    std::size_t size_ = 0;
    std::vector<T> items_;
};

}  // namespace stator::forecast
