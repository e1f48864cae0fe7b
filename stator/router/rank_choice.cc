#include "stator/router/rank_choice.h"

#include <algorithm>

namespace stator::router {

void RankChoice::consider(std::size_t index, const protocol::LoadReport& load,
                          std::uint32_t pending, std::uint32_t own) {
    const std::uint64_t there = std::uint64_t{load.running} + load.waiting + pending;
    const std::uint64_t limit = std::uint64_t{load.running_limit} + load.waiting_limit;
    if (limit != 0 && there >= limit) return;
    const double relative =
        static_cast<double>(there) / static_cast<double>(std::max(load.running_limit, 1U));
    if (best_ && (relative > best_load_ || (relative == best_load_ && own > best_own_))) return;
    const bool equal = best_ && relative == best_load_ && own == best_own_;
    equals_ = equal ? equals_ + 1 : 1;
    // The k-th of equals takes the place with probability 1/k: each of them is as likely.
    if (equal && random_() % equals_ != 0) return;
    best_ = index;
    best_load_ = relative;
    best_own_ = own;
}

}  // namespace stator::router
