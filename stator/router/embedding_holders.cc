#include "stator/router/embedding_holders.h"

#include <algorithm>
#include <cstring>

namespace stator::router {

std::size_t EmbeddingHolders::Hash::operator()(const protocol::Digest& digest) const {
    std::size_t h = 0;  // a digest's bytes are as good as drawn
    std::memcpy(&h, digest.data(), sizeof h);
    return h;
}

void EmbeddingHolders::add(const protocol::Digest& item, RankIndex rank) {
    auto known = by_digest_.find(item);
    if (known == by_digest_.end()) {
        if (by_digest_.size() >= most_items_) {
            by_digest_.erase(by_use_.back().item);
            by_use_.pop_back();
        }
        by_use_.push_front({item, {}});
        known = by_digest_.emplace(item, by_use_.begin()).first;
    } else {
        by_use_.splice(by_use_.begin(), by_use_, known->second);
    }
    std::vector<RankIndex>& ranks = known->second->ranks;
    std::erase(ranks, rank);
    if (ranks.size() >= kMostRanks) ranks.erase(ranks.begin());
    ranks.push_back(rank);
}

void EmbeddingHolders::forget(RankIndex rank) {
    for (auto at = by_use_.begin(); at != by_use_.end();) {
        std::erase(at->ranks, rank);
        if (at->ranks.empty()) {
            by_digest_.erase(at->item);
            at = by_use_.erase(at);
        } else {
            ++at;
        }
    }
}

void EmbeddingHolders::find(const protocol::Digest& item, std::vector<Overlap>& out) {
    const auto known = by_digest_.find(item);
    if (known == by_digest_.end()) return;
    by_use_.splice(by_use_.begin(), by_use_, known->second);
    for (const RankIndex rank : known->second->ranks) out.push_back({rank, 1, 1});
}

}  // namespace stator::router
