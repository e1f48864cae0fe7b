#include "stator/sim/break_even.h"

#include <algorithm>

namespace stator::sim {

void BreakEven::note(std::uint32_t tokens, bool split) {
    ++decisions_;
    if (split) ++splits_;
    if (noted_.size() < kMost) noted_.emplace_back(tokens, split);
}

BreakEven::Size BreakEven::size() {
    if (noted_.empty()) return {};
    std::ranges::sort(noted_);
    // With the border below all of them, those that were not split are wrong.
    auto wrong = static_cast<std::size_t>(
        std::ranges::count_if(noted_, [](const auto& n) { return !n.second; }));
    std::size_t least = wrong;
    Size out{.tokens = noted_.front().first, .wrong_percent = 0};
    for (std::size_t i = 0; i < noted_.size(); ++i) {
        wrong = noted_[i].second ? wrong + 1 : wrong - 1;
        const bool last = i + 1 == noted_.size();
        if (wrong >= least || (!last && noted_[i + 1].first == noted_[i].first)) continue;
        least = wrong;
        out.tokens = last ? noted_[i].first + 1 : noted_[i + 1].first;
    }
    out.wrong_percent = 100.0 * static_cast<double>(least) / static_cast<double>(noted_.size());
    return out;
}

}  // namespace stator::sim
