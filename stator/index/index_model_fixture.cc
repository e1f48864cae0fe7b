#include "stator/index/index_model_fixture.h"

namespace stator::index {

using tokens::SequenceHash;

void IndexModel::stored(RankSlot rank, protocol::KvTier tier,
                        std::span<const SequenceHash> blocks) {
    Rank& r = ranks_.at(rank.value);
    auto& set = r.tiers[static_cast<std::size_t>(tier)];
    for (const SequenceHash b : blocks) {
        if (r.total() >= limit_ && !set.contains(b.value)) continue;
        set.insert(b.value);
        if (tier == protocol::KvTier::kDevice) r.predicted.erase(b.value);
    }
}

void IndexModel::removed(RankSlot rank, protocol::KvTier tier,
                         std::span<const SequenceHash> blocks) {
    Rank& r = ranks_.at(rank.value);
    for (const SequenceHash b : blocks) {
        r.tiers[static_cast<std::size_t>(tier)].erase(b.value);
        if (tier == protocol::KvTier::kDevice) r.predicted.erase(b.value);
    }
}

void IndexModel::predict(RankSlot rank, std::span<const SequenceHash> blocks,
                         TimePoint expires_at) {
    Rank& r = ranks_.at(rank.value);
    for (const SequenceHash b : blocks) {
        if (r.tiers[0].contains(b.value)) continue;
        const auto found = r.predicted.find(b.value);
        if (found != r.predicted.end()) {
            found->second = std::max(found->second, expires_at);
        } else if (r.total() < limit_) {
            r.predicted[b.value] = expires_at;
        }
    }
}

void IndexModel::expire(TimePoint now) {
    for (auto& [slot, rank] : ranks_) {
        std::erase_if(rank.predicted, [&](const auto& p) { return p.second <= now; });
    }
}

std::uint32_t IndexModel::device_depth(RankSlot rank, std::span<const SequenceHash> blocks) const {
    const Rank& r = ranks_.at(rank.value);
    std::uint32_t depth = 0;
    while (depth < blocks.size() && r.device(blocks[depth].value)) ++depth;
    return depth;
}

std::uint32_t IndexModel::any_depth(RankSlot rank, std::span<const SequenceHash> blocks) const {
    const Rank& r = ranks_.at(rank.value);
    std::uint32_t depth = 0;
    while (depth < blocks.size() &&
           (r.device(blocks[depth].value) || r.tiers[1].contains(blocks[depth].value) ||
            r.tiers[2].contains(blocks[depth].value))) {
        ++depth;
    }
    return depth;
}

std::size_t IndexModel::held(RankSlot rank) const {
    const Rank& r = ranks_.at(rank.value);
    return r.total() - r.predicted.size();
}

std::set<std::uint64_t> IndexModel::blocks(RankSlot rank, protocol::KvTier tier) const {
    return ranks_.at(rank.value).tiers[static_cast<std::size_t>(tier)];
}

}  // namespace stator::index
