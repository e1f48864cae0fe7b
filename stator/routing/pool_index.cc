#include "stator/routing/pool_index.h"

#include <algorithm>
#include <utility>

namespace stator::routing {
namespace {

constexpr std::size_t kTidyBudget = 256;  // runs, some tens of microseconds
constexpr std::chrono::milliseconds kTidyEvery{20};

}  // namespace

PoolIndex::PoolIndex(const index::IndexOptions& options)
    : index_(options), ranks_(new std::atomic<router::RankIndex>[options.max_ranks]) {
    for (std::uint32_t i = 0; i < options.max_ranks; ++i) ranks_[i] = router::kNoRank;
}

std::optional<index::RankSlot> PoolIndex::add_rank(router::RankIndex rank) {
    const std::scoped_lock lock(mutex_);
    const auto slot = index_.add_rank();
    if (!slot) return std::nullopt;
    ranks_[slot->value].store(rank, std::memory_order_relaxed);
    return *slot;
}

void PoolIndex::remove_rank(index::RankSlot slot) {
    const std::scoped_lock lock(mutex_);
    ranks_[slot.value].store(router::kNoRank, std::memory_order_relaxed);
    index_.remove_rank(slot);
}

std::uint64_t PoolIndex::apply(index::RankSlot slot, const protocol::KvEvent& event) {
    const std::scoped_lock lock(mutex_);
    index_.apply(slot, event);
    return index_.orphans_of(slot);
}

void PoolIndex::clear(index::RankSlot slot) {
    const std::scoped_lock lock(mutex_);
    index_.cleared(slot);
}

void PoolIndex::predict(index::RankSlot slot, std::span<const tokens::SequenceHash> blocks,
                        TimePoint expires_at, std::uint64_t tenant) {
    const std::scoped_lock lock(mutex_);
    index_.predict(slot, std::nullopt, blocks, expires_at, tenant);
}

bool PoolIndex::tidy(TimePoint now) {
    std::int64_t last = tidied_ns_.load(std::memory_order_relaxed);
    if (now.ns - last < std::chrono::nanoseconds(kTidyEvery).count()) return false;
    if (!tidied_ns_.compare_exchange_strong(last, now.ns, std::memory_order_relaxed)) return false;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (lock) index_.tidy(now, kTidyBudget);
    return lock.owns_lock();
}

bool PoolIndex::lookup(std::span<const tokens::SequenceHash> blocks,
                       std::vector<router::Overlap>& out) const {
    thread_local index::Overlap found;
    out.clear();
    index_.lookup(blocks, found);
    // Whoever holds some in device memory holds as many in any.
    found.any().for_each([&](const index::RankDepth& d) {
        const auto rank = ranks_[d.rank.value].load(std::memory_order_relaxed);
        if (rank == router::kNoRank || d.depth == 0) return;
        const bool same = &found.any() == &found.device();
        out.push_back({rank, same ? d.depth : found.device().of(d.rank), d.depth});
    });
    return found.upper_bound();
}

PoolIndex::Size PoolIndex::size() const {
    const std::scoped_lock lock(mutex_);
    return {index_.blocks(), index_.used_bytes(), index_.counters()};
}

std::size_t PoolIndex::blocks_of(index::RankSlot slot) const {
    const std::scoped_lock lock(mutex_);
    return index_.blocks_of(slot);
}

std::vector<PoolIndex::Run> PoolIndex::dump(index::RankSlot slot, std::size_t skip,
                                            std::size_t limit) const {
    std::vector<Run> out;
    const std::scoped_lock lock(mutex_);
    index_.export_rank(slot, [&](const index::HeldBlocks& held) {
        const std::size_t passed = std::min(skip, held.blocks.size());
        skip -= passed;
        const auto taken =
            held.blocks.subspan(passed, std::min(limit, held.blocks.size() - passed));
        limit -= taken.size();
        if (!taken.empty()) out.push_back({held.tier, {taken.begin(), taken.end()}});
    });
    return out;
}

void IndexWriter::apply(std::uint32_t rank, const protocol::KvEvent& event) {
    if (rank >= slots_.size() || !slots_[rank]) return;
    const std::uint64_t orphans = index_->apply(*slots_[rank], event);
    const std::uint64_t last = std::exchange(orphans_[rank].last, orphans);
    // What is caught up with comes in another order.
    if (orphans > last && is_live(rank)) {
        orphans_[rank].count.fetch_add(orphans - last, std::memory_order_relaxed);
    }
}

void IndexWriter::reset(std::uint32_t rank) {
    if (rank < slots_.size() && slots_[rank]) index_->clear(*slots_[rank]);
}

void IndexWriter::live(std::uint32_t rank, bool is_live, std::uint64_t /*sequence*/) {
    if (rank < live_.size()) live_[rank].store(is_live, std::memory_order_relaxed);
}

}  // namespace stator::routing
