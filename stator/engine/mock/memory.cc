#include "stator/engine/mock/memory.h"

#include <algorithm>

#include "stator/base/check.h"

namespace stator::engine::mock {
namespace {

SlowTier make_tier(const TierOptions& tier, const CoreOptions& o) {
    return SlowTier(tier.blocks, o.kv_bytes_per_token * o.block_tokens, tier.read_gb_per_s,
                    tier.write_gb_per_s);
}

}  // namespace

Memory::Memory(const CoreOptions& o)
    : device_(o.blocks, o.prefix_cache), host_(make_tier(o.host, o)), disk_(make_tier(o.disk, o)) {}

Memory::Found Memory::find(std::span<const SequenceHash> names) const {
    Found found;
    std::size_t i = 0;
    while (i < names.size() && device_.find(names[i]) != BlockPool::kNone) ++i;
    found.device = static_cast<std::uint32_t>(i);
    while (i < names.size() && (host_.holds(names[i]) || disk_.holds(names[i])) &&
           device_.find(names[i]) == BlockPool::kNone) {
        ++i;
    }
    found.slow = static_cast<std::uint32_t>(i) - found.device;
    return found;
}

BlockPool::BlockId Memory::allocate(Nanos now) {
    std::optional<BlockPool::Evicted> evicted;
    const BlockPool::BlockId block = device_.allocate(evicted);
    if (evicted) demote(*evicted, now);
    return block;
}

/// The next memory has it before this one says that it is gone, so that a reader of the changes
/// never believes it lost.
void Memory::demote(const BlockPool::Evicted& evicted, Nanos now) {
    const SlowTier::Block block{evicted.name, evicted.parent};
    if (host_.exists()) {
        std::optional<SlowTier::Block> out;
        if (host_.put(block, now, out) == SlowTier::Put::kStored) {
            note(KvChange::Kind::kStored, KvTier::kHost, block.name).parent = block.parent;
        }
        if (out) {
            if (disk_.exists()) put_on_disk(*out, now);
            note(KvChange::Kind::kRemoved, KvTier::kHost, out->name);
        }
    } else if (disk_.exists()) {
        put_on_disk(block, now);
    }
    note(KvChange::Kind::kRemoved, KvTier::kDevice, evicted.name);
}

void Memory::put_on_disk(const SlowTier::Block& block, Nanos now) {
    std::optional<SlowTier::Block> out;
    if (disk_.put(block, now, out) == SlowTier::Put::kStored) {
        note(KvChange::Kind::kStored, KvTier::kDisk, block.name).parent = block.parent;
    }
    if (out) note(KvChange::Kind::kRemoved, KvTier::kDisk, out->name);
}

void Memory::publish(BlockPool::BlockId block, std::span<const SequenceHash> names,
                     std::uint32_t index, RequestId owner) {
    const std::optional<SequenceHash> parent =
        index > 0 ? std::optional(names[index - 1]) : std::nullopt;
    if (!device_.name(block, names[index], parent)) return;
    KvChange& change = note(KvChange::Kind::kStored, KvTier::kDevice, names[index]);
    change.parent = parent;
    change.owner = owner;
    change.index = index;
}

Nanos Memory::read(std::span<const SequenceHash> names, Nanos now) {
    std::uint32_t from_host = 0;
    std::uint32_t from_disk = 0;
    for (const SequenceHash name : names) {
        if (host_.holds(name)) {
            host_.touch(name);
            ++from_host;
        } else {
            disk_.touch(name);
            ++from_disk;
        }
    }
    Nanos ready = now;
    if (from_host > 0) ready = std::max(ready, host_.read(from_host, now));
    if (from_disk > 0) ready = std::max(ready, disk_.read(from_disk, now));
    return ready;
}

void Memory::clear() {
    device_.forget_names();
    host_.clear();
    disk_.clear();
    note(KvChange::Kind::kCleared, KvTier::kDevice, {});
}

std::vector<SequenceHash> Memory::names(KvTier tier) const {
    switch (tier) {
        case KvTier::kDevice:
            return device_.names();
        case KvTier::kHost:
            return host_.names();
        case KvTier::kDisk:
            return disk_.names();
    }
    return {};
}

void Memory::take_changes(std::vector<KvChange>& changes) {
    changes.insert(changes.end(), changes_.begin(), changes_.end());
    changes_.clear();
}

KvChange& Memory::note(KvChange::Kind kind, KvTier tier, SequenceHash name) {
    KvChange& change = changes_.emplace_back();
    change.kind = kind;
    change.tier = tier;
    change.block = name;
    return change;
}

}  // namespace stator::engine::mock
