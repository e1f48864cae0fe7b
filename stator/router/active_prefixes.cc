#include "stator/router/active_prefixes.h"

#include <algorithm>

namespace stator::router {

void ActivePrefixes::add(RankIndex rank, std::span<const std::uint64_t> blocks) {
    if (rank >= distinct_.size()) distinct_.resize(rank + 1);
    for_each_place(blocks.size(), [&](std::size_t i) {
        add_one(rank, blocks[i]);
        return true;
    });
}

void ActivePrefixes::remove(RankIndex rank, std::span<const std::uint64_t> blocks) {
    for_each_place(blocks.size(), [&](std::size_t i) {
        remove_one(rank, blocks[i]);
        return true;
    });
}

std::vector<std::uint64_t> ActivePrefixes::places(std::span<const std::uint64_t> blocks,
                                                  std::size_t most) const {
    std::vector<std::uint64_t> out;
    for_each_place(blocks.size(), [&](std::size_t i) {
        out.push_back(blocks[i]);
        return out.size() < most;
    });
    if (out.size() > most) out.resize(most);
    return out;
}

void ActivePrefixes::add_places(RankIndex rank, std::span<const std::uint64_t> places) {
    if (rank >= distinct_.size()) distinct_.resize(rank + 1);
    for (const std::uint64_t hash : places) add_one(rank, hash);
}

void ActivePrefixes::remove_places(RankIndex rank, std::span<const std::uint64_t> places) {
    for (const std::uint64_t hash : places) remove_one(rank, hash);
}

void ActivePrefixes::add_one(RankIndex rank, std::uint64_t hash) {
    std::vector<Holder>& holders = entries_[hash];
    const auto found = std::ranges::lower_bound(holders, rank, {}, &Holder::rank);
    if (found != holders.end() && found->rank == rank) {
        ++found->count;
    } else {
        holders.insert(found, {rank, 1});
        ++distinct_[rank];
    }
}

void ActivePrefixes::remove_one(RankIndex rank, std::uint64_t hash) {
    const auto entry = entries_.find(hash);
    if (entry == entries_.end()) return;
    const auto found = std::ranges::lower_bound(entry->second, rank, {}, &Holder::rank);
    if (found == entry->second.end() || found->rank != rank) return;
    if (--found->count > 0) return;
    entry->second.erase(found);
    --distinct_[rank];
    if (entry->second.empty()) entries_.erase(entry);
}

}  // namespace stator::router
