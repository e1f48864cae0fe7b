#include "stator/index/prediction_owners.h"

#include "stator/base/check.h"

namespace stator::index {

void PredictionOwners::add(const Age& age, std::uint64_t where, std::uint32_t blocks) {
    const bool fresh = pieces_.emplace(age, where).second;
    STATOR_ASSERT(fresh);
    static_cast<void>(fresh);
    blocks_[age.tenant] += blocks;
}

void PredictionOwners::remove(const Age& age, std::uint32_t blocks) {
    pieces_.erase(age);
    const auto of = blocks_.find(age.tenant);
    if (of == blocks_.end()) return;
    of->second -= blocks;
    if (of->second > 0) return;
    blocks_.erase(of);
    // A table that was large once keeps its size.
    constexpr std::size_t kSmall = 1024;
    if (blocks_.bucket_count() > kSmall && blocks_.size() < blocks_.bucket_count() / 8) {
        blocks_.rehash(0);
    }
}

std::optional<PredictionOwners::Oldest> PredictionOwners::oldest(std::uint64_t tenant) const {
    const auto first = pieces_.lower_bound(Age{tenant, 0, 0});
    if (first == pieces_.end() || first->first.tenant != tenant) return std::nullopt;
    return Oldest{first->first.call, ~first->first.from_end, first->second};
}

std::size_t PredictionOwners::blocks_of(std::uint64_t tenant) const {
    const auto found = blocks_.find(tenant);
    return found == blocks_.end() ? 0 : found->second;
}

std::size_t PredictionOwners::memory_bytes() const {
    constexpr std::size_t kNode = 32 + sizeof(Age) + 8 + 8;  // with what the allocator adds
    return pieces_.size() * kNode + blocks_.size() * 40 + blocks_.bucket_count() * 8;
}

}  // namespace stator::index
