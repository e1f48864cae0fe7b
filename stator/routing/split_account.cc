#include "stator/routing/split_account.h"

#include <algorithm>

namespace stator::routing {

void SplitAccount::decided(std::uint32_t computed_tokens, bool split) {
    ++(split ? split_ : whole_);
    if (recent_.size() < kRecent) {
        recent_.emplace_back(computed_tokens, split);
        return;
    }
    recent_[next_] = {computed_tokens, split};
    next_ = (next_ + 1) % kRecent;
}

void SplitAccount::prompt_computed(std::uint64_t booking, router::RankIndex from,
                                   router::RankIndex to, std::uint32_t tokens, TimePoint now) {
    if (open_.size() < kMostOpen) open_[booking] = {from, to, tokens, now};
}

void SplitAccount::handed_over(std::uint64_t booking, TimePoint now) {
    constexpr double kKeep = 0.9;
    const auto it = open_.find(booking);
    if (it == open_.end()) return;
    const Open open = it->second;
    open_.erase(it);
    const auto key = std::pair(open.from, open.to);
    if (ways_.size() >= kMostWays && !ways_.contains(key)) return;
    Sums& s = ways_[key];
    ++s.handoffs;
    s.weight = s.weight * kKeep + 1;
    s.seconds = s.seconds * kKeep + to_seconds(now - open.since);
    s.tokens = s.tokens * kKeep + open.tokens;
}

void SplitAccount::forget(router::RankIndex rank) {
    std::erase_if(open_,
                  [&](const auto& o) { return o.second.from == rank || o.second.to == rank; });
    std::erase_if(ways_,
                  [&](const auto& w) { return w.first.first == rank || w.first.second == rank; });
}

std::uint32_t SplitAccount::break_even() const {
    auto sorted = recent_;
    std::ranges::sort(sorted);
    if (std::ranges::none_of(sorted, [](const auto& d) { return d.second; })) {
        return sorted.empty() ? 0 : sorted.back().first + 1;
    }
    // With the border below all of them, those that were not split are wrong.
    auto wrong = static_cast<std::size_t>(
        std::ranges::count_if(sorted, [](const auto& d) { return !d.second; }));
    std::size_t least = wrong;
    std::uint32_t border = sorted.front().first;
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        wrong = sorted[i].second ? wrong + 1 : wrong - 1;
        const bool last = i + 1 == sorted.size();
        if (wrong >= least || (!last && sorted[i + 1].first == sorted[i].first)) continue;
        least = wrong;
        border = last ? sorted[i].first + 1 : sorted[i + 1].first;
    }
    return border;
}

std::vector<SplitAccount::Way> SplitAccount::ways() const {
    std::vector<Way> out;
    for (const auto& [key, s] : ways_) {
        Way& w = out.emplace_back(Way{key.first, key.second, s.handoffs});
        w.mean_s = s.seconds / s.weight;
        w.tokens_per_s = s.seconds > 0 ? s.tokens / s.seconds : 0;
    }
    return out;
}

}  // namespace stator::routing
