#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace stator::sim {

/// From which size on prompts get a worker of their own, as decisions show it: the size that has
/// fewest of them on its wrong side. Bounded: of more than kMost decisions the first ones count.
class BreakEven {
  public:
    static constexpr std::size_t kMost = 1'000'000;

    /// `tokens` were to be computed, those cached not included.
    void note(std::uint32_t tokens, bool split);
    [[nodiscard]] std::uint64_t decisions() const { return decisions_; }
    [[nodiscard]] std::uint64_t splits() const { return splits_; }
    struct Size {
        std::uint32_t tokens = 0;  ///< prompts of at least so many are split
        double wrong_percent = 0;  ///< of the decisions
    };
    [[nodiscard]] Size size();

  private:
    std::vector<std::pair<std::uint32_t, bool>> noted_;
    std::uint64_t decisions_ = 0;
    std::uint64_t splits_ = 0;
};

}  // namespace stator::sim
