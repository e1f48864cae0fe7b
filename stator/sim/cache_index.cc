#include "stator/sim/cache_index.h"

#include <algorithm>

#include "stator/base/check.h"
#include "stator/tokens/hash.h"

namespace stator::sim {
namespace {

using engine::mock::Fault;
using engine::mock::KvChange;
using index::PrefixIndex;
using protocol::Role;
using tokens::SequenceHash;

constexpr std::size_t kLeastBlocks = 1U << 18;
constexpr std::size_t kMostBlocks = 1U << 27;
/// A run takes whole units of eight: room for blocks that follow nothing and nothing follows.
constexpr std::uint64_t kPlaces = 8;
constexpr std::size_t kMostBytes = std::size_t{32} << 30;
/// The index puts itself in order each time so many lookups have been made.
constexpr std::uint32_t kTidyEvery = 64;
constexpr std::size_t kTidyBudget = 256;

/// What an engine with another hash seed calls the same prefix.
SequenceHash renamed(SequenceHash name) {
    return tokens::sequence_hash(name, tokens::BlockHash(0x5eed));
}

std::uint64_t all_blocks(const Group& group) {
    const auto& o = group.core;
    return std::uint64_t{o.blocks} + o.host.blocks + o.disk.blocks;
}

/// Room for all that workers of this role can hold, now and as the plan goes.
index::IndexOptions room(const Scenario& scenario, Role role) {
    std::uint64_t ranks = 0;
    std::uint64_t blocks = 0;
    const auto add = [&](const Group& g, std::uint64_t workers) {
        const bool one = scenario.splits() && g.role != Role::kEncode;
        if (one ? role != Role::kAggregated : g.role != role) return;
        ranks += workers;
        blocks += workers * all_blocks(g);
    };
    for (const Group& g : scenario.groups) add(g, g.workers);
    for (const Resize& r : scenario.resizes) add(scenario.groups[r.group], r.workers);
    index::IndexOptions o;
    o.max_ranks = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(ranks, 1, 1U << 23));
    o.max_blocks = std::clamp<std::uint64_t>(blocks * kPlaces, kLeastBlocks, kMostBlocks);
    o.max_blocks_per_rank = kMostBlocks;
    o.max_bytes = kMostBytes;
    return o;
}

}  // namespace

CacheIndex::CacheIndex(const Scenario& scenario, Fleet& fleet, std::uint64_t seed)
    : scenario_(scenario), fleet_(fleet), seed_(seed) {
    open_pools();
    add_workers();
}

void CacheIndex::open_pools() {
    for (const Role role : {Role::kAggregated, Role::kPrefill}) {
        const auto first = std::ranges::find_if(
            scenario_.groups, [&](const Group& g) { return &pool_of(g.role) == &pool_of(role); });
        if (first == scenario_.groups.end() || pool_of(role).index) continue;
        Pool& pool = pool_of(role);
        pool.index = std::make_unique<PrefixIndex>(room(scenario_, role));
        pool.block_tokens = first->core.block_tokens;
    }
    const bool lies = std::ranges::any_of(
        scenario_.faults, [](const Fault& f) { return f.kind == Fault::Kind::kLoseEvents; });
    if (!lies) return;
    index::IndexOptions o = room(scenario_, Role::kAggregated);
    const index::IndexOptions prefill = room(scenario_, Role::kPrefill);
    o.max_ranks = std::max(o.max_ranks, 1U) + prefill.max_ranks;
    o.max_blocks = std::min(kMostBlocks, o.max_blocks + prefill.max_blocks);
    told_ = std::make_unique<PrefixIndex>(o);
}

void CacheIndex::add_workers() {
    for (auto w = static_cast<std::uint32_t>(sources_.size()); w < fleet_.size(); ++w) {
        Source& source = sources_.emplace_back();
        Pool& pool = pool_of(w);
        const auto& options = fleet_.group_of(w).core;
        if (!pool.index || options.block_tokens != pool.block_tokens || !options.prefix_cache) {
            continue;
        }
        const auto slot = pool.index->add_rank();
        if (!slot) continue;  // never found: it gets requests by load
        source.slot = *slot;
        if (pool.workers.size() <= slot->value) pool.workers.resize(slot->value + 1);
        pool.workers[slot->value] = w;
        if (scenario_.faults.empty()) continue;
        source.chance = std::make_unique<std::minstd_rand>(
            static_cast<std::minstd_rand::result_type>(seed_ * 7919 + w + 1));
        if (told_ && fleet_.worker(w).faults.first_lie()) {
            if (const auto truth = told_->add_rank()) source.truth = *truth;
        }
    }
}

void CacheIndex::remove_worker(std::uint32_t worker) {
    Source& source = sources_[worker];
    if (!source.slot) return;
    pool_of(worker).index->remove_rank(*source.slot);
    source.slot.reset();
    source.dropped.clear();
    if (source.truth) told_->remove_rank(*source.truth);
    source.truth.reset();
}

/// Blocks in a row make one message, as an engine's publisher would.
void CacheIndex::take_changes(std::uint32_t worker, Nanos now) {
    changes_.clear();
    fleet_.worker(worker).core->take_changes(changes_);
    if (!follows(worker)) return;
    const bool other_names = fleet_.worker(worker).faults.changed_hash_seed(now);
    const auto name = [&](SequenceHash n) { return other_names ? renamed(n) : n; };
    next_.worker = worker;
    next_.blocks.resize(1);
    Blocks& run = next_.blocks.front();
    for (std::size_t i = 0; i < changes_.size();) {
        const KvChange& first = changes_[i];
        run.tier = first.tier;
        run.parent.reset();
        run.names.clear();
        switch (first.kind) {
            case KvChange::Kind::kStored:
                next_.kind = Message::Kind::kStored;
                if (first.parent) run.parent = name(*first.parent);
                for (; i < changes_.size(); ++i) {
                    const KvChange& c = changes_[i];
                    if (c.kind != first.kind || c.tier != first.tier) break;
                    if (&c != &first && c.parent != changes_[i - 1].block) break;
                    run.names.push_back(name(c.block));
                }
                break;
            case KvChange::Kind::kRemoved:
                next_.kind = Message::Kind::kRemoved;
                for (; i < changes_.size(); ++i) {
                    const KvChange& c = changes_[i];
                    if (c.kind != first.kind || c.tier != first.tier) break;
                    run.names.push_back(name(c.block));
                }
                break;
            case KvChange::Kind::kCleared:
                next_.kind = Message::Kind::kCleared;
                ++i;
                break;
        }
        tell(next_, now);
    }
}

bool CacheIndex::lost(Source& source, double probability) const {
    if (probability <= 0) return false;
    return std::uniform_real_distribution<>()(*source.chance) < probability;
}

/// An event on its way, or lost.
void CacheIndex::tell(Message& message, Nanos now) {
    Source& source = sources_[message.worker];
    if (source.truth) write(*told_, *source.truth, message);
    if (!source.chance) return send(message, now + scenario_.events_delay, now);
    const engine::mock::FaultPlan& faults = fleet_.worker(message.worker).faults;
    if (lost(source, faults.lose_probability(now))) return;
    if (lost(source, faults.drop_probability(now))) {
        source.dropped.push_back(message);
        return;
    }
    Nanos at = now + scenario_.events_delay;
    if (!source.dropped.empty()) {
        // The gap shows with this one; it waits for those before it.
        at += scenario_.request_delay + scenario_.response_delay;
        for (Message& m : source.dropped) send(m, at, now);
        source.dropped.clear();
    }
    send(message, at, now);
}

void CacheIndex::send(Message& message, Nanos at, Nanos now) {
    Source& source = sources_[message.worker];
    at = std::max(at, source.not_before);
    if (at <= now) {
        if (!on_their_way_.empty()) deliver(now);
        return apply(message);
    }
    source.not_before = at;
    if (free_.empty()) {
        free_.push_back(static_cast<std::uint32_t>(messages_.size()));
        messages_.emplace_back();
    }
    const std::uint32_t place = free_.back();
    free_.pop_back();
    messages_[place] = message;
    on_their_way_.add(at, place);
}

void CacheIndex::deliver(Nanos now) {
    while (!on_their_way_.empty() && on_their_way_.next_time() <= now) {
        const std::uint32_t place = on_their_way_.take();
        apply(messages_[place]);
        free_.push_back(place);
    }
}

void CacheIndex::apply(const Message& message) {
    const Source& source = sources_[message.worker];
    if (!source.slot) return;  // gone meanwhile
    if (message.kind == Message::Kind::kSnapshot) resynced_.push_back(message.worker);
    write(*pool_of(message.worker).index, *source.slot, message);
}

void CacheIndex::write(PrefixIndex& index, index::RankSlot slot, const Message& message) {
    switch (message.kind) {
        case Message::Kind::kStored:
            for (const Blocks& b : message.blocks) index.stored(slot, b.tier, b.parent, b.names);
            return;
        case Message::Kind::kRemoved:
            for (const Blocks& b : message.blocks) index.removed(slot, b.tier, b.names);
            return;
        case Message::Kind::kCleared:
            return index.cleared(slot);
        case Message::Kind::kSnapshot: {
            if (!message.whole) return;
            std::vector<index::HeldBlocks> held;
            held.reserve(message.blocks.size());
            for (const Blocks& b : message.blocks) held.push_back({b.tier, b.names});
            return index.replace(slot, held);
        }
    }
}

void CacheIndex::look_up(Role role, std::span<const SequenceHash> blocks, Nanos now,
                         std::vector<router::Overlap>& out) {
    deliver(now);
    out.clear();
    Pool& pool = pool_of(role);
    if (!pool.index) return;
    if (++lookups_ % kTidyEvery == 0) {
        (void)pool.index->tidy(TimePoint{now.count()}, kTidyBudget);
    }
    pool.index->lookup(blocks, found_);
    const bool one_memory = &found_.any() == &found_.device();
    found_.any().for_each([&](const index::RankDepth& d) {
        if (d.depth == 0) return;
        const std::uint32_t device = one_memory ? d.depth : found_.device().of(d.rank);
        out.push_back({pool.workers[d.rank.value], device, d.depth});
    });
}

std::uint64_t CacheIndex::take_orphans(std::uint32_t worker) {
    Source& source = sources_[worker];
    if (!source.slot) return 0;
    const index::PrefixIndex& index = *pool_of(worker).index;
    const std::uint64_t all = index.orphans_of(*source.slot);
    const std::uint64_t before = std::exchange(source.orphans, all);
    return all > before ? all - before : 0;
}

void CacheIndex::resync(std::uint32_t worker, Nanos now) {
    Source& source = sources_[worker];
    if (!source.slot) return;
    take_changes(worker, now);
    Message m;
    m.kind = Message::Kind::kSnapshot;
    m.worker = worker;
    if (source.truth) {
        m.whole = true;
        told_->export_rank(*source.truth, [&](const index::HeldBlocks& held) {
            m.blocks.push_back({held.tier, std::nullopt, {held.blocks.begin(), held.blocks.end()}});
        });
        source.dropped.clear();
    }
    const Nanos way = scenario_.request_delay + scenario_.response_delay;
    send(m, now + scenario_.events_delay + way, now);
}

std::vector<std::uint32_t> CacheIndex::take_resynced() { return std::exchange(resynced_, {}); }

}  // namespace stator::sim
