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

void IndexModel::predict(RankSlot rank, std::span<const SequenceHash> blocks, TimePoint expires_at,
                         std::uint64_t tenant) {
    Rank& r = ranks_.at(rank.value);
    ++calls_;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (quota_ > 0 && i >= quota_) {
            ++quota_blocks_;
            continue;
        }
        const std::uint64_t b = blocks[i].value;
        if (r.tiers[0].contains(b)) continue;
        const auto found = r.predicted.find(b);
        if (found != r.predicted.end()) {
            found->second = {std::max(found->second.expires_at, expires_at), tenant, calls_, i};
        } else if (r.total() < limit_) {
            r.predicted[b] = {expires_at, tenant, calls_, i};
        }
    }
    while (quota_ > 0 && predicted_of(tenant) > quota_) end_oldest(tenant);
}

std::size_t IndexModel::predicted_of(std::uint64_t tenant) const {
    std::size_t n = 0;
    for (const auto& [slot, rank] : ranks_) {
        for (const auto& [block, guess] : rank.predicted) n += guess.tenant == tenant;
    }
    return n;
}

/// Of the earliest call what stood last in it.
void IndexModel::end_oldest(std::uint64_t tenant) {
    std::map<std::uint64_t, Guess>* of = nullptr;
    std::map<std::uint64_t, Guess>::iterator oldest;
    for (auto& [slot, rank] : ranks_) {
        for (auto at = rank.predicted.begin(); at != rank.predicted.end(); ++at) {
            const Guess& g = at->second;
            if (g.tenant != tenant) continue;
            if (of == nullptr || g.call < oldest->second.call ||
                (g.call == oldest->second.call && g.place > oldest->second.place)) {
                of = &rank.predicted;
                oldest = at;
            }
        }
    }
    of->erase(oldest);
    ++quota_blocks_;
}

void IndexModel::expire(TimePoint now) {
    for (auto& [slot, rank] : ranks_) {
        std::erase_if(rank.predicted, [&](const auto& p) { return p.second.expires_at <= now; });
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
