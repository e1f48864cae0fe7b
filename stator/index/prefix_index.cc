#include "stator/index/prefix_index.h"

#include <algorithm>
#include <limits>
#include <variant>

#include "stator/base/check.h"

namespace stator::index {

using protocol::KvTier;
using std::memory_order_relaxed;
using std::memory_order_release;
using tokens::SequenceHash;

namespace {

/// How far ahead of the current block the locator is fetched from memory.
constexpr std::size_t kAhead = 40;

std::uint32_t way_of(KvTier tier) { return static_cast<std::uint32_t>(tier); }

std::size_t max_runs(const IndexOptions& o) { return o.max_blocks / BlockStore::kUnit; }

}  // namespace

PrefixIndex::PrefixIndex(IndexOptions options)
    : options_(options),
      store_(options.max_blocks),
      locator_(store_.unit_bits()),
      runs_(max_runs(options)),
      heads_(max_runs(options)),
      pool_(options.max_blocks / 2 + std::size_t{options.max_ranks} * 64),
      holders_(pool_),
      alive_(std::make_unique<std::atomic<std::uint64_t>[]>(options.max_ranks / 64 + 1)) {
    STATOR_CHECK(options.max_ranks > 0 && options.max_ranks < (1U << 24), "1 to 2^24 - 1 ranks");
}

// --- ranks

Result<RankSlot> PrefixIndex::add_rank() {
    if (free_slots_.empty() && ranks_.size() == options_.max_ranks) {
        free_leaving(std::numeric_limits<std::size_t>::max());
    }
    std::uint32_t slot = 0;
    if (!free_slots_.empty()) {
        slot = free_slots_.back();
        free_slots_.pop_back();
    } else if (ranks_.size() < options_.max_ranks) {
        slot = static_cast<std::uint32_t>(ranks_.size());
        ranks_.emplace_back();
        alive_words_.store(slot / 64 + 1, memory_order_release);
    } else {
        return error(ErrorCode::kExhausted, "the index has {} ranks, its bound", ranks_.size());
    }
    ranks_[slot] = Rank{};
    ranks_[slot].state = RankState::kIn;
    set_alive(slot, true);
    return RankSlot(slot);
}

void PrefixIndex::remove_rank(RankSlot slot) {
    Rank* rank = rank_in(slot);
    if (rank == nullptr) return;
    set_alive(slot.value, false);
    if (rank->sparse) sparse_ranks_.fetch_sub(1, memory_order_relaxed);
    rank->state = RankState::kLeaving;
    leaving_.push_back(slot.value);
}

PrefixIndex::Rank* PrefixIndex::rank_in(RankSlot slot) {
    if (slot.value < ranks_.size() && ranks_[slot.value].state == RankState::kIn) {
        return &ranks_[slot.value];
    }
    ++counters_.ignored_events;
    return nullptr;
}

void PrefixIndex::set_alive(std::uint32_t slot, bool alive) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    const std::uint64_t old = alive_[slot / 64].load(memory_order_relaxed);
    alive_[slot / 64].store(alive ? old | bit : old & ~bit, memory_order_release);
}

void PrefixIndex::count_held(Rank& rank, std::uint32_t way, std::int64_t blocks) {
    rank.held[way] += static_cast<std::size_t>(blocks);
    if (way == kHost || way == kDisk) {
        lower_blocks_.store(
            lower_blocks_.load(memory_order_relaxed) + static_cast<std::size_t>(blocks),
            memory_order_relaxed);
    }
}

// --- where blocks are

bool PrefixIndex::is_at(Place place, std::uint64_t hash) const {
    const Run& run = runs_[place.run];
    return place.run != 0 && place.offset < run.length.load(memory_order_relaxed) &&
           store_.get(run.base.load(memory_order_relaxed) + place.offset) == hash;
}

bool PrefixIndex::unit_has(std::uint32_t unit, std::uint64_t hash, Place& place) const {
    for (std::uint32_t i = 0; i < BlockStore::kUnit; ++i) {
        const std::uint32_t block = unit * BlockStore::kUnit + i;
        if (store_.get(block) != hash) continue;
        const std::uint32_t id = store_.owner(unit);
        const Run& run = runs_[id];
        const std::uint32_t offset = block - run.base.load(memory_order_relaxed);
        // Else it is what is left of a block that went.
        if (offset < run.length.load(memory_order_relaxed)) {
            place = {id, offset};
            return true;
        }
    }
    return false;
}

PrefixIndex::Place PrefixIndex::locate(std::uint64_t hash) const {
    Place place;
    static_cast<void>(
        locator_.find(hash, [&](std::uint32_t unit) { return unit_has(unit, hash, place); }));
    return place;
}

/// Whether a block that comes after `last` has room behind it. Extends the extent if it must.
bool PrefixIndex::can_append(Place last, std::size_t more) {
    if (last.run == 0) return false;
    Run& run = runs_[last.run];
    const std::uint32_t length = run.length.load(memory_order_relaxed);
    if (last.offset + 1 != length || length == kMaxRun || holders_.any_bits(run)) return false;
    const std::uint32_t base = run.base.load(memory_order_relaxed);
    const std::uint32_t end = base / BlockStore::kUnit + run.units;
    if (base + length < end * BlockStore::kUnit) return true;
    // A long row gets an extent of its own.
    if (more > 4 * BlockStore::kUnit || !store_.grow(end, last.run)) return false;
    ++run.units;
    return true;
}

/// Puts blocks behind `last` as long as they are new and there is room; `last` becomes the last of
/// them. How many. `known` is the place of the next block, if that is why it ended.
std::size_t PrefixIndex::append_all(Place& last, std::span<const SequenceHash> blocks,
                                    Place& known) {
    std::size_t done = 0;
    while (done < blocks.size() && can_append(last, blocks.size() - done)) {
        Run& run = runs_[last.run];
        const std::uint32_t base = run.base.load(memory_order_relaxed);
        const std::uint32_t room =
            std::min(kMaxRun, (base / BlockStore::kUnit + run.units) * BlockStore::kUnit - base);
        std::uint32_t length = run.length.load(memory_order_relaxed);
        bool stop = false;
        for (; length < room && done < blocks.size(); ++length, ++done) {
            if (done + kAhead < blocks.size()) locator_.prefetch(blocks[done + kAhead].value);
            const std::uint64_t hash = blocks[done].value;
            stop = locator_.find_or_insert(hash, (base + length) / BlockStore::kUnit,
                                           [&](std::uint32_t unit) {
                                               return unit_has(unit, hash, known);
                                           }) != Locator::kInserted;
            if (stop) break;
            store_.set(base + length, hash);
            // Found from now on, if the same event names it twice.
            run.length.store(static_cast<std::uint16_t>(length + 1), memory_order_release);
        }
        last.offset = length - 1;
        if (locator_.crowded()) grow_locator();
        if (stop) break;
    }
    return done;
}

PrefixIndex::Place PrefixIndex::start_run(std::uint64_t hash, std::size_t blocks) {
    if (heads_.crowded()) rebuild_heads();
    const std::uint32_t id = runs_.allocate();
    out_of_room_ = id == 0;
    if (id == 0) return {};
    Run& run = runs_[id];
    const auto units = static_cast<std::uint32_t>(std::min<std::size_t>(
        (blocks + BlockStore::kUnit - 1) / BlockStore::kUnit, kMaxRun / BlockStore::kUnit));
    const std::uint32_t first = store_.allocate(units, id);
    out_of_room_ = first == BlockStore::kNone;
    const std::uint32_t base = first * BlockStore::kUnit;
    const bool placed = first != BlockStore::kNone && locator_.insert(hash, first);
    if (placed) store_.set(base, hash);
    run.units = static_cast<std::uint16_t>(units);
    run.stamp = clock_;
    run.base.store(base, memory_order_relaxed);
    run.head.store(hash, memory_order_relaxed);
    run.length.store(placed ? 1 : 0, memory_order_relaxed);
    runs_.finish(id);
    if (!placed || !heads_.insert(hash, id)) {
        if (placed) locator_.erase(hash, first);
        runs_.free(id);
        if (first != BlockStore::kNone) store_.free(first, units);
        return {};
    }
    if (locator_.crowded()) grow_locator();
    return {id, 0};
}

// --- stored

void PrefixIndex::stored(RankSlot slot, KvTier tier, std::optional<SequenceHash> parent,
                         std::span<const SequenceHash> blocks, KvGroup group) {
    Rank* rank = rank_in(slot);
    if (rank == nullptr) return;
    if (group == KvGroup::kSparse) {
        counters_.sparse_blocks += blocks.size();
        if (!rank->sparse) sparse_ranks_.fetch_add(1, memory_order_relaxed);
        rank->sparse = true;
        return;
    }
    counters_.stored_blocks += blocks.size();
    store(slot.value, way_of(tier), parent, blocks, Guess{});
}

void PrefixIndex::predict(RankSlot slot, std::optional<SequenceHash> parent,
                          std::span<const SequenceHash> blocks, TimePoint expires_at,
                          std::uint64_t tenant) {
    if (rank_in(slot) == nullptr) return;
    const std::size_t quota = options_.max_predicted_per_tenant;
    if (quota > 0 && blocks.size() > quota) {
        counters_.quota_blocks += blocks.size() - quota;
        blocks = blocks.first(quota);
    }
    store(slot.value, kPredicted, parent, blocks, {expires_at, tenant, ++predict_calls_});
}

void PrefixIndex::store(std::uint32_t slot, std::uint32_t way, std::optional<SequenceHash> parent,
                        std::span<const SequenceHash> blocks, const Guess& guess) {
    Rank& rank = ranks_[slot];
    ++clock_;
    const bool tight = rank.all_held() + blocks.size() > options_.max_blocks_per_rank;
    Place last;
    if (parent) {
        last = is_at(rank.last_stored, parent->value) ? rank.last_stored : locate(parent->value);
        if (last.run == 0 && way != kPredicted) {
            ++counters_.unknown_parents;
            if (way == kDevice) ++rank.orphans;
        }
    }
    Stretch stretch;
    const auto write = [&] {
        if (stretch.run != 0) hold(slot, way, stretch, guess);
        stretch = {};
    };
    std::size_t i = 0;
    while (i < blocks.size()) {
        const std::uint64_t hash = blocks[i].value;
        Place place{last.run, last.offset + 1};
        if (!is_at(place, hash)) {
            place = {};
            Place end = last;
            const std::size_t appended = tight ? 0 : append_all(end, blocks.subspan(i), place);
            if (appended > 0) {
                const std::uint32_t begin = last.offset + 1;
                if (stretch.run != end.run || stretch.end != begin) {
                    write();
                    stretch = {end.run, begin, begin, static_cast<std::uint32_t>(i)};
                }
                stretch.end = end.offset + 1;
                last = end;
                i += appended;
                continue;
            }
            if (place.run == 0) place = locate(hash);
        }
        if (i + kAhead < blocks.size()) locator_.prefetch(blocks[i + kAhead].value);
        if (tight) {
            write();
            if (!may_hold_more(slot, way, place)) {
                ++counters_.refused_blocks;
                rank.refused = true;
                last = place;
                ++i;
                continue;
            }
        }
        if (place.run == 0) {
            place = start_run(hash, tight ? 1 : blocks.size() - i);
            if (place.run == 0 && out_of_room_) {  // others go
                write();
                evict_one(0);
                place = start_run(hash, 1);
            }
        }
        ++i;
        if (place.run != last.run && place.offset == 0 && last.run != 0) {
            runs_[last.run].next.store(place.run, memory_order_relaxed);
        }
        last = place;
        if (place.run == 0) {
            ++counters_.refused_blocks;
            rank.refused = true;
            continue;
        }
        if (stretch.run != place.run || stretch.end != place.offset) {
            write();
            stretch = {place.run, place.offset, place.offset, static_cast<std::uint32_t>(i - 1)};
        }
        ++stretch.end;
    }
    write();
    rank.last_stored = last;
    if (way == kPredicted) keep_within_quota(guess.tenant);
    keep_within_bytes(last.run);
}

bool PrefixIndex::may_hold_more(std::uint32_t slot, std::uint32_t way, Place place) const {
    if (ranks_[slot].all_held() < options_.max_blocks_per_rank) return true;
    if (place.run == 0) return false;
    return std::ranges::any_of(holders_.of(runs_[place.run], slot), [&](const Entry& e) {
        return e.way == way && e.begin <= place.offset && place.offset < e.end;
    });
}

void PrefixIndex::hold(std::uint32_t slot, std::uint32_t way, const Stretch& stretch,
                       const Guess& guess) {
    Run& run = runs_[stretch.run];
    run.stamp = clock_;
    const bool all =
        way == kPredicted ? hold_predicted(slot, stretch, guess) : add_entry(slot, way, stretch);
    if (way == kDevice && ranks_[slot].held[kPredicted] > 0) {
        take_entry(slot, kPredicted, stretch);
    }
    if (!all) trim(stretch.run);  // no memory for the entry: what nobody holds goes
}

/// Leaves out what is held in device memory.
bool PrefixIndex::hold_predicted(std::uint32_t slot, const Stretch& stretch, const Guess& guess) {
    std::vector<Entry> confirmed;
    for (const Entry& e : holders_.of(runs_[stretch.run], slot)) {
        if (e.way == kDevice) confirmed.push_back(e);
    }
    std::uint32_t at = stretch.begin;
    bool all = true;
    const auto predict_until = [&](std::uint32_t end) {
        end = std::min(end, stretch.end);
        if (at >= end) return;
        if (add_entry(slot, kPredicted, {stretch.run, at, end})) {
            predictions_.set(slot, stretch.run,
                             {at, end, guess.expires_at, guess.tenant, guess.call,
                              stretch.first + (at - stretch.begin)});
        } else {
            all = false;
        }
    };
    for (const Entry& e : confirmed) {
        predict_until(e.begin);
        at = std::max(at, e.end);
    }
    predict_until(stretch.end);
    return all;
}

bool PrefixIndex::add_entry(std::uint32_t slot, std::uint32_t way, const Stretch& stretch) {
    Rank& rank = ranks_[slot];
    Run& run = runs_[stretch.run];
    const std::uint32_t blocks = stretch.end - stretch.begin;
    const bool was_there = holders_.holds(run, slot, way);
    const auto fresh = holders_.add(run, {slot, stretch.begin, way, stretch.end},
                                    alive_words_.load(memory_order_relaxed));
    if (!fresh) {
        counters_.refused_blocks += blocks;
        return false;
    }
    if (way != kPredicted) counters_.stored_again += blocks - *fresh;
    count_held(rank, way, *fresh);
    const bool shared = way == kDevice && stretch.begin == 0 &&
                        run.entries.load(memory_order_relaxed) >= Holders::kManyFull &&
                        stretch.end < run.length.load(memory_order_relaxed);
    if (!was_there) know_new_run(slot, stretch.run);
    if (shared) part_shared_beginning(stretch.run, stretch.end);
    return true;
}

void PrefixIndex::know_new_run(std::uint32_t slot, std::uint32_t run) {
    Rank& rank = ranks_[slot];
    ++rank.live_runs;
    if (rank.runs.size() > 2 * rank.live_runs + 64) shorten_run_list(slot);
    rank_lists_ -= rank.runs.capacity();
    rank.runs.push_back(run);
    rank_lists_ += rank.runs.capacity();
}

void PrefixIndex::shorten_run_list(std::uint32_t slot) {
    std::vector<std::uint32_t>& runs = ranks_[slot].runs;
    std::ranges::sort(runs);
    runs.erase(std::ranges::unique(runs).begin(), runs.end());
    std::erase_if(runs, [&](std::uint32_t run) { return holders_.of(runs_[run], slot).empty(); });
}

void PrefixIndex::prefetch(std::span<const SequenceHash> blocks) const {
    for (const SequenceHash block : blocks.first(std::min(blocks.size(), kAhead))) {
        locator_.prefetch(block.value);
    }
}

// --- removed

void PrefixIndex::removed(RankSlot slot, KvTier tier, std::span<const SequenceHash> blocks,
                          KvGroup group) {
    Rank* rank = rank_in(slot);
    if (rank == nullptr || group == KvGroup::kSparse) return;
    counters_.removed_blocks += blocks.size();
    Place last = rank->last_removed;
    Stretch stretch;
    const auto write = [&] {
        if (stretch.run == 0) return;
        const std::uint32_t gone = take(slot.value, way_of(tier), stretch);
        counters_.removed_unknown +=
            stretch.end - stretch.begin - std::min(gone, stretch.end - stretch.begin);
        stretch = {};
    };
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (i + kAhead < blocks.size()) locator_.prefetch(blocks[i + kAhead].value);
        const std::uint64_t hash = blocks[i].value;
        // Engines free chains from their ends; some, from their beginnings.
        Place place{last.run, last.offset - 1};
        if (!is_at(place, hash)) place = {last.run, last.offset + 1};
        if (!is_at(place, hash)) {
            write();  // may free the run
            place = locate(hash);
        }
        if (place.run == 0) {
            ++counters_.removed_unknown;
            continue;
        }
        last = place;
        if (stretch.run == place.run && place.offset + 1 == stretch.begin) {
            --stretch.begin;
        } else if (stretch.run == place.run && place.offset == stretch.end) {
            ++stretch.end;
        } else {
            write();
            if (!is_at(place, hash)) {  // nobody held it any more
                ++counters_.removed_unknown;
                continue;
            }
            stretch = {place.run, place.offset, place.offset + 1};
        }
    }
    write();
    rank->last_removed = last;
}

std::uint32_t PrefixIndex::take(std::uint32_t slot, std::uint32_t way, const Stretch& stretch) {
    const std::uint32_t gone = take_entry(slot, way, stretch);
    std::uint32_t predicted = 0;
    if (way == kDevice && ranks_[slot].held[kPredicted] > 0) {
        predicted = take_entry(slot, kPredicted, stretch);
    }
    if (gone + predicted > 0) after_removal(stretch.run, stretch);
    return gone;
}

std::uint32_t PrefixIndex::take_entry(std::uint32_t slot, std::uint32_t way,
                                      const Stretch& stretch) {
    Run& run = runs_[stretch.run];
    const std::uint32_t gone = holders_.remove(run, {slot, stretch.begin, way, stretch.end});
    if (gone == 0) return 0;
    count_held(ranks_[slot], way, -static_cast<std::int64_t>(gone));
    if (!holders_.holds(run, slot, way)) --ranks_[slot].live_runs;
    if (way == kPredicted) predictions_.erase(slot, stretch.run, stretch.begin, stretch.end);
    return gone;
}

void PrefixIndex::drop_rank_from(std::uint32_t id, std::uint32_t slot) {
    const auto of = holders_.of(runs_[id], slot);
    const std::vector<Entry> entries(of.begin(), of.end());
    for (const Entry& e : entries) take_entry(slot, e.way, {id, e.begin, e.end});
    for (const Entry& e : entries) {
        if (runs_[id].length.load(memory_order_relaxed) == 0) break;
        after_removal(id, {id, e.begin, e.end});
    }
}

void PrefixIndex::cleared(RankSlot slot) {
    Rank* rank = rank_in(slot);
    if (rank == nullptr) return;
    while (!rank->runs.empty()) {
        const std::uint32_t run = rank->runs.back();
        rank->runs.pop_back();
        drop_rank_from(run, slot.value);
    }
}

void PrefixIndex::replace(RankSlot slot, std::span<const HeldBlocks> blocks) {
    cleared(slot);
    for (const HeldBlocks& held : blocks) stored(slot, held.tier, {}, held.blocks);
}

void PrefixIndex::apply(RankSlot slot, const protocol::KvEvent& event) {
    if (const auto* s = std::get_if<protocol::KvStored>(&event.what)) {
        hashes_.clear();
        for (const protocol::StoredBlock& block : s->blocks) hashes_.push_back(block.sequence);
        stored(slot, s->tier, s->parent, hashes_, s->group);
    } else if (const auto* r = std::get_if<protocol::KvRemoved>(&event.what)) {
        removed(slot, r->tier, r->sequences, r->group);
    } else {
        cleared(slot);
    }
}

// --- asked by the writer

void PrefixIndex::export_rank(RankSlot slot,
                              const std::function<void(const HeldBlocks&)>& take) const {
    if (slot.value >= ranks_.size() || ranks_[slot.value].state != RankState::kIn) return;
    std::vector<std::uint32_t> runs = ranks_[slot.value].runs;
    std::ranges::sort(runs);
    runs.erase(std::ranges::unique(runs).begin(), runs.end());
    std::vector<SequenceHash> hashes;
    for (const std::uint32_t id : runs) {
        const Run& run = runs_[id];
        const auto of = holders_.of(run, slot.value);
        const std::vector<Entry> entries(of.begin(), of.end());
        for (const Entry& e : entries) {
            if (e.way == kPredicted) continue;
            hashes.clear();
            for (std::uint32_t i = e.begin; i < e.end; ++i) {
                hashes.emplace_back(store_.get(run.base.load(memory_order_relaxed) + i));
            }
            take({static_cast<KvTier>(e.way), hashes});
        }
    }
}

std::size_t PrefixIndex::blocks_of(RankSlot slot) const {
    if (slot.value >= ranks_.size() || ranks_[slot.value].state != RankState::kIn) return 0;
    const Rank& rank = ranks_[slot.value];
    return rank.all_held() - rank.held[kPredicted];
}

std::uint64_t PrefixIndex::orphans_of(RankSlot slot) const {
    if (slot.value >= ranks_.size()) return 0;
    const Rank& rank = ranks_[slot.value];
    return rank.refused || rank.evicted > 0 ? 0 : rank.orphans;
}

std::uint64_t PrefixIndex::evicted_of(RankSlot slot) const {
    return slot.value < ranks_.size() ? ranks_[slot.value].evicted : 0;
}

}  // namespace stator::index
