// What keeps a PrefixIndex small and its invariants true: runs cut, split and freed, ranks that
// left, predictions that end, bounds, growing tables.

#include <algorithm>
#include <limits>

#include "stator/base/check.h"
#include "stator/index/prefix_index.h"

namespace stator::index {

using std::memory_order_relaxed;

namespace {

constexpr std::uint32_t kUnit = BlockStore::kUnit;
/// Runs with more entries are not searched for gaps: it would cost more than they waste.
constexpr std::uint32_t kEntriesSearched = 256;

std::uint32_t unit_of(const Run& run, std::uint32_t offset) {
    return (run.base.load(memory_order_relaxed) + offset) / kUnit;
}

std::vector<std::uint64_t> moved(std::span<const Entry> entries, std::uint32_t by) {
    std::vector<std::uint64_t> words;
    for (const Entry& e : entries) {
        words.push_back(Entry{e.rank, e.begin - by, e.way, e.end - by}.word());
    }
    std::ranges::sort(words);
    return words;
}

}  // namespace

void PrefixIndex::after_removal(std::uint32_t id, const Stretch& stretch) {
    Run& run = runs_[id];
    if (stretch.end >= run.length.load(memory_order_relaxed)) {
        trim(id);
        return;
    }
    run.inner_removed = static_cast<std::uint16_t>(
        std::min<std::uint32_t>(run.inner_removed + stretch.end - stretch.begin, kMaxRun));
    if (run.inner_removed >= kUnit) close_gaps(id);
}

/// Cuts off the end that nobody holds.
void PrefixIndex::trim(std::uint32_t id) {
    Run& run = runs_[id];
    const std::uint32_t length = run.length.load(memory_order_relaxed);
    const std::uint32_t end = holders_.end(run);
    if (end == length) return;
    if (end == 0) {
        free_run(id);
        return;
    }
    forget_blocks(run, end, length);
    {
        const RunChange change(run);
        run.length.store(static_cast<std::uint16_t>(end), memory_order_relaxed);
    }
    const std::uint32_t first = unit_of(run, 0);
    const std::uint32_t kept = unit_of(run, end - 1) + 1 - first;
    if (kept < run.units) {
        store_.free(first + kept, run.units - kept);
        run.units = static_cast<std::uint16_t>(kept);
    }
}

void PrefixIndex::forget_blocks(const Run& run, std::uint32_t begin, std::uint32_t end) {
    const std::uint32_t base = run.base.load(memory_order_relaxed);
    for (std::uint32_t i = end; i-- > begin;) {
        if (i >= begin + 8) locator_.prefetch(store_.get(base + i - 8));
        locator_.erase(store_.get(base + i), (base + i) / kUnit);
    }
}

/// Of a run without holders.
void PrefixIndex::free_run(std::uint32_t id) {
    Run& run = runs_[id];
    heads_.erase(run.head.load(memory_order_relaxed), id);
    forget_blocks(run, 0, run.length.load(memory_order_relaxed));
    const std::uint32_t first = unit_of(run, 0);
    const std::uint32_t units = run.units;
    runs_.free(id);
    store_.free(first, units);
}

/// Frees units in which nobody holds a block: at the beginning and in the middle.
void PrefixIndex::close_gaps(std::uint32_t id) {
    Run& run = runs_[id];
    run.inner_removed = 0;
    if (holders_.any_bits(run) || run.entries.load(memory_order_relaxed) > kEntriesSearched) return;
    std::vector<Entry> entries;
    bool predicted = false;
    holders_.for_each(run, [&](const Entry& e) {
        entries.push_back(e);
        predicted |= e.way == kPredicted;
    });
    if (predicted) return;  // its pieces are kept by their places
    std::ranges::sort(entries, {}, &Entry::begin);
    // From the end, so that what is left of a split has the same places.
    std::vector<Stretch> gaps;
    std::uint32_t covered = 0;
    for (const Entry& e : entries) {
        if (e.begin > covered) gaps.push_back({id, covered, e.begin});
        covered = std::max(covered, e.end);
    }
    for (std::size_t i = gaps.size(); i-- > 0;) {
        const Stretch& gap = gaps[i];
        if (gap.begin == 0) {
            if (unit_of(run, gap.end) == unit_of(run, 0)) continue;
            drop_front(id, gap.end, entries);
        } else if (unit_of(run, gap.end) - unit_of(run, gap.begin - 1) >= 2) {
            if (!split(id, gap.begin, gap.end, entries)) return;
            std::erase_if(entries, [&](const Entry& e) { return e.begin >= gap.end; });
        }
    }
}

void PrefixIndex::drop_front(std::uint32_t id, std::uint32_t blocks,
                             std::span<const Entry> entries) {
    Run& run = runs_[id];
    const std::uint32_t old_first = unit_of(run, 0);
    heads_.erase(run.head.load(memory_order_relaxed), id);
    forget_blocks(run, 0, blocks);
    const std::uint32_t base = run.base.load(memory_order_relaxed) + blocks;
    {
        const RunChange change(run);
        holders_.clear(run);
        run.base.store(base, memory_order_relaxed);
        run.head.store(store_.get(base), memory_order_relaxed);
        run.length.store(static_cast<std::uint16_t>(run.length.load(memory_order_relaxed) - blocks),
                         memory_order_relaxed);
        if (!holders_.assign(run, moved(entries, blocks))) STATOR_BUG("no room for what had room");
    }
    const std::uint32_t dropped = base / kUnit - old_first;
    run.units = static_cast<std::uint16_t>(run.units - dropped);
    store_.free(old_first, dropped);
    insert_head(id);
}

/// Cuts a run in two and leaves out the blocks from `left_end` to `right_begin`, which nobody
/// holds; there may be none. False, and nothing changed, if there is no room.
bool PrefixIndex::split(std::uint32_t id, std::uint32_t left_end, std::uint32_t right_begin,
                        std::span<const Entry> entries) {
    if (heads_.crowded()) rebuild_heads();
    Run& run = runs_[id];
    const std::uint32_t length = run.length.load(memory_order_relaxed);
    std::vector<Entry> left_entries;
    std::vector<Entry> right_entries;
    for (const Entry& e : entries) {
        if (e.begin < left_end) {
            left_entries.push_back({e.rank, e.begin, e.way, std::min(e.end, left_end)});
        }
        if (e.end > right_begin) {
            right_entries.push_back({e.rank, std::max(e.begin, right_begin), e.way, e.end});
        }
    }
    const std::uint32_t right_id = runs_.allocate();
    if (right_id == 0) return false;
    Run& right = runs_[right_id];
    // In place, unless a unit would belong to both.
    const std::uint32_t base = run.base.load(memory_order_relaxed);
    const std::uint32_t first = unit_of(run, 0);
    const std::uint32_t left_units = unit_of(run, left_end - 1) + 1 - first;
    const bool moves = first + left_units > unit_of(run, right_begin);
    std::uint32_t right_first = unit_of(run, right_begin);
    std::uint32_t right_units = first + run.units - right_first;
    std::uint32_t right_base = base + right_begin;
    if (moves) {
        right_units = (length - right_begin + kUnit - 1) / kUnit;
        right_first = store_.allocate(right_units, right_id);
        right_base = right_first * kUnit;
        for (std::uint32_t i = right_begin; right_first != BlockStore::kNone && i < length; ++i) {
            store_.set(right_base + i - right_begin, store_.get(base + i));
        }
    }
    right.base.store(right_base, memory_order_relaxed);
    right.head.store(store_.get(right_base), memory_order_relaxed);
    right.length.store(static_cast<std::uint16_t>(length - right_begin), memory_order_relaxed);
    right.units = static_cast<std::uint16_t>(right_units);
    right.stamp = run.stamp;
    runs_.finish(right_id);
    if (right_first == BlockStore::kNone ||
        !holders_.assign(right, moved(right_entries, right_begin))) {
        if (moves && right_first != BlockStore::kNone) store_.free(right_first, right_units);
        runs_.free(right_id);
        return false;
    }
    insert_head(right_id);
    forget_blocks(run, left_end, right_begin);
    if (moves) {
        for (std::uint32_t i = right_begin; i < length; ++i) {
            const std::uint64_t hash = store_.get(base + i);
            locator_.erase(hash, (base + i) / kUnit);
            const std::uint32_t unit = (right_base + i - right_begin) / kUnit;
            if (!locator_.insert(hash, unit)) ++counters_.lost_blocks;
        }
    } else {
        store_.set_owner(right_first, right_units, right_id);
    }
    {
        const RunChange change(run);
        holders_.clear(run);
        run.length.store(static_cast<std::uint16_t>(left_end), memory_order_relaxed);
        if (!holders_.assign(run, moved(left_entries, 0))) STATOR_BUG("no room for what had room");
    }
    const std::uint32_t end = first + run.units;
    const std::uint32_t free_end = moves ? end : right_first;
    run.units = static_cast<std::uint16_t>(left_units);
    if (first + left_units < free_end) {
        store_.free(first + left_units, free_end - first - left_units);
    }
    know_run(right_id, entries, left_entries, right_entries);
    return true;
}

/// Ranks know their runs.
void PrefixIndex::know_run(std::uint32_t right_id, std::span<const Entry> before,
                           std::span<const Entry> left, std::span<const Entry> right) {
    const auto change = [&](std::span<const Entry> entries, std::ptrdiff_t by) {
        std::vector<std::uint64_t> pairs;
        for (const Entry& e : entries) pairs.push_back(std::uint64_t{e.rank} << 2 | e.way);
        std::ranges::sort(pairs);
        pairs.erase(std::ranges::unique(pairs).begin(), pairs.end());
        for (const std::uint64_t pair : pairs) {
            ranks_[pair >> 2].live_runs += static_cast<std::size_t>(by);
        }
    };
    change(before, -1);
    change(left, 1);
    change(right, 1);
    for (const Entry& e : right) {
        std::vector<std::uint32_t>& list = ranks_[e.rank].runs;
        if (!list.empty() && list.back() == right_id) continue;
        rank_lists_ -= list.capacity();
        list.push_back(right_id);
        rank_lists_ += list.capacity();
    }
}

/// Many ranks hold the same beginning of a run, as happens with a system prompt: it becomes a run
/// of its own, whose holders are a set of bits.
void PrefixIndex::part_shared_beginning(std::uint32_t id, std::uint32_t end) {
    Run& run = runs_[id];
    if (holders_.any_bits(run)) return;
    std::vector<Entry> entries;
    std::uint32_t same = 0;
    bool predicted = false;
    holders_.for_each(run, [&](const Entry& e) {
        entries.push_back(e);
        same += e.way == kDevice && e.begin == 0 && e.end == end;
        predicted |= e.way == kPredicted;
    });
    if (same < Holders::kManyFull || predicted) return;
    if (split(id, end, end, entries)) {
        holders_.gather_full(run, kDevice, alive_words_.load(memory_order_relaxed));
    }
}

// --- tidy

bool PrefixIndex::tidy(TimePoint now, std::size_t budget) {
    expire(now);
    const bool idle = free_leaving(budget) < budget;
    if (!idle) return false;
    if (locator_.sparse()) {
        if (!rebuild_locator(std::max(Locator::kFewestBuckets, locator_.buckets() / 4)))
            return true;
        locator_stays_below_ = 0;
        return false;
    }
    if (heads_.sparse()) rebuild_heads();
    store_.release_unused();
    runs_.release_unused();
    pool_.release_unused();
    return true;
}

/// How many runs it looked at, at most `budget`; fewer if all that left are freed.
std::size_t PrefixIndex::free_leaving(std::size_t budget) {
    std::size_t looked = 0;
    while (!leaving_.empty() && looked < budget) {
        const std::uint32_t slot = leaving_.back();
        Rank& rank = ranks_[slot];
        for (; !rank.runs.empty() && looked < budget; ++looked) {
            const std::uint32_t run = rank.runs.back();
            rank.runs.pop_back();
            drop_rank_from(run, slot);
        }
        if (!rank.runs.empty()) break;
        rank_lists_ -= rank.runs.capacity();
        rank = Rank{};
        leaving_.pop_back();
        free_slots_.push_back(slot);
    }
    return looked;
}

void PrefixIndex::expire(TimePoint now) {
    Predictions::Ended gone;
    while (predictions_.take_expired(now, gone)) {
        const Stretch stretch{gone.run, gone.begin, gone.end};
        if (take_entry(gone.rank, kPredicted, stretch) > 0) after_removal(gone.run, stretch);
    }
}

// --- bounds

/// Of a tenant that predicts too much, its oldest go.
void PrefixIndex::keep_within_quota(std::uint64_t tenant) {
    const PredictionOwners& owners = predictions_.owners();
    const std::size_t quota = options_.max_predicted_per_tenant;
    if (quota == 0 || owners.blocks_of(tenant) <= quota) return;
    // What ranks that left had does not count.
    if (!leaving_.empty()) free_leaving(std::numeric_limits<std::size_t>::max());
    Predictions::Ended gone;
    while (owners.blocks_of(tenant) > quota &&
           predictions_.take_oldest(tenant, owners.blocks_of(tenant) - quota, gone)) {
        const Stretch stretch{gone.run, gone.begin, gone.end};
        const std::uint32_t blocks = take_entry(gone.rank, kPredicted, stretch);
        counters_.quota_blocks += blocks;
        if (blocks > 0) after_removal(gone.run, stretch);
    }
}

bool PrefixIndex::evict_one(std::uint32_t except) {
    std::uint32_t oldest = 0;
    std::uint32_t age = 0;
    int seen = 0;
    for (int tries = 0; tries < 64 && seen < 8; ++tries) {
        dice_ ^= dice_ << 13;
        dice_ ^= dice_ >> 7;
        dice_ ^= dice_ << 17;
        const auto id = static_cast<std::uint32_t>(dice_ % runs_.end());
        if (id == 0 || id == except || runs_[id].length.load(memory_order_relaxed) == 0) continue;
        ++seen;
        if (oldest == 0 || clock_ - runs_[id].stamp > age) {
            oldest = id;
            age = clock_ - runs_[id].stamp;
        }
    }
    if (oldest == 0) return false;
    Run& run = runs_[oldest];
    std::vector<Entry> entries;
    holders_.for_each(run, [&](const Entry& e) { entries.push_back(e); });
    for (const Entry& e : entries) {
        const std::uint32_t gone = take_entry(e.rank, e.way, {oldest, e.begin, e.end});
        ranks_[e.rank].evicted += gone;
        counters_.evicted_blocks += gone;
    }
    free_run(oldest);
    return true;
}

void PrefixIndex::keep_within_bytes(std::uint32_t except) {
    while (used_bytes() > options_.max_bytes && evict_one(except)) {
    }
}

std::size_t PrefixIndex::used_bytes() const {
    return store_.used_bytes() + runs_.used_bytes() + pool_.used_bytes() + locator_.memory_bytes() +
           heads_.memory_bytes() + predictions_.memory_bytes() +
           rank_lists_ * sizeof(std::uint32_t) + ranks_.capacity() * sizeof(Rank);
}

std::size_t PrefixIndex::memory_bytes() const {
    return store_.memory_bytes() + runs_.memory_bytes() + pool_.memory_bytes() +
           locator_.memory_bytes() + heads_.memory_bytes() + predictions_.memory_bytes() +
           rank_lists_ * sizeof(std::uint32_t) + ranks_.capacity() * sizeof(Rank);
}

// --- tables

void PrefixIndex::grow_locator() {
    if (locator_.size() < locator_stays_below_) return;
    const std::size_t buckets = locator_.buckets();
    if (!rebuild_locator(buckets * 2) && !rebuild_locator(buckets * 4)) {
        // Somebody makes hashes that fall together: no size would help. What finds no place is
        // refused.
        locator_stays_below_ = locator_.size() + locator_.size() / 2;
    }
}

/// False, and nothing changed, if a block found no place.
bool PrefixIndex::rebuild_locator(std::size_t buckets) {
    Locator next(store_.unit_bits(), buckets);
    for (std::uint32_t id = 1; id < runs_.end(); ++id) {
        const Run& run = runs_[id];
        const std::uint32_t base = run.base.load(memory_order_relaxed);
        const std::uint32_t end = base + run.length.load(memory_order_relaxed);
        if (end == base) continue;
        for (std::uint32_t block = base; block < end; ++block) {
            if (block + 32 < end) next.prefetch(store_.get(block + 32));
            if (!next.insert(store_.get(block), block / kUnit)) return false;
        }
    }
    locator_ = std::move(next);
    return true;
}

void PrefixIndex::rebuild_heads() {
    heads_.start_rebuild(runs_.used());
    for (std::uint32_t id = 1; id < runs_.end(); ++id) {
        const std::uint32_t length = runs_[id].length.load(memory_order_relaxed);
        if (length != 0) insert_head(id);
    }
    heads_.publish();
}

/// A run whose head finds no place is not found by readers.
void PrefixIndex::insert_head(std::uint32_t id) {
    if (!heads_.insert(runs_[id].head.load(memory_order_relaxed), id)) {
        counters_.refused_blocks += runs_[id].length.load(memory_order_relaxed);
    }
}

}  // namespace stator::index
