#include "stator/estimate/forecast/conformal.h"

#include <algorithm>

namespace stator::forecast {
void Conformal::learn(const Quantiles& said, double actual) {
    for (std::size_t q = 0; q < said.size(); ++q) {
        if (q == kMedian) continue;
        const double want = kQuantiles[q];
        const double below = actual < said[q] ? 1.0 : actual > said[q] ? 0.0 : 0.5;
        const double tail = std::min(want, 1 - want);
        // Bounded: never beyond half way to certainty, nor past the neighbours for long.
        levels_[q] =
            std::clamp(levels_[q] + rate_ * (want - below), want - 0.75 * tail, want + 0.75 * tail);
    }
    for (std::size_t q = 1; q < said.size(); ++q) levels_[q] = std::max(levels_[q], levels_[q - 1]);
}

}  // namespace stator::forecast
