#include "stator/router/active_prefixes.h"

#include <algorithm>

namespace stator::router {

void ActivePrefixes::add(RankIndex rank, std::span<const std::uint64_t> blocks) {
    if (rank >= distinct_.size()) distinct_.resize(rank + 1);
    for_each_place(blocks.size(), [&](std::size_t i) {
        std::vector<Holder>& holders = entries_[blocks[i]];
        const auto found = std::ranges::lower_bound(holders, rank, {}, &Holder::rank);
        if (found != holders.end() && found->rank == rank) {
            ++found->count;
        } else {
            holders.insert(found, {rank, 1});
            ++distinct_[rank];
        }
        return true;
    });
}

void ActivePrefixes::remove(RankIndex rank, std::span<const std::uint64_t> blocks) {
    for_each_place(blocks.size(), [&](std::size_t i) {
        const auto entry = entries_.find(blocks[i]);
        if (entry == entries_.end()) return true;
        const auto found = std::ranges::lower_bound(entry->second, rank, {}, &Holder::rank);
        if (found == entry->second.end() || found->rank != rank) return true;
        if (--found->count > 0) return true;
        entry->second.erase(found);
        --distinct_[rank];
        if (entry->second.empty()) entries_.erase(entry);
        return true;
    });
}

}  // namespace stator::router
