#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

namespace stator::kube {

/// How long to wait before trying again: doubling, with half of it left to chance so that many
/// clients of one server that was away don't come back at once.
class Backoff {
  public:
    using Time = std::chrono::milliseconds;
    Backoff(Time first, Time most, std::uint64_t seed)
        : first_(first), most_(most), now_(first), random_(seed) {}

    [[nodiscard]] Time next() {
        const Time whole = now_;
        now_ = std::min(most_, now_ * 2);
        return whole / 2 + chance(whole / 2);
    }
    /// Evenly between nothing and `most`.
    [[nodiscard]] Time chance(Time most) {
        return Time(std::uniform_int_distribution<std::int64_t>(0, most.count())(random_));
    }
    void reset() { now_ = first_; }
    [[nodiscard]] bool at_rest() const { return now_ == first_; }

  private:
    Time first_;
    Time most_;
    Time now_;
    std::mt19937_64 random_;
};

}  // namespace stator::kube
