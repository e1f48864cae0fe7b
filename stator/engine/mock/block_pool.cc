#include "stator/engine/mock/block_pool.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "stator/base/check.h"

namespace stator::engine::mock {
namespace {

constexpr std::size_t kFirstIndex = 64;

}  // namespace

BlockPool::BlockPool(std::uint32_t blocks, bool index_names)
    : capacity_(blocks), index_names_(index_names) {
    STATOR_CHECK(blocks > 0 && blocks < kNone, "a pool has blocks");
}

BlockPool::BlockId BlockPool::allocate(std::optional<Evicted>& evicted) {
    STATOR_CHECK(available() > 0, "a block is available");
    ++in_use_;
    BlockId id = nameless_;
    if (id != kNone) {
        nameless_ = blocks_[id].next;
    } else if (blocks_.size() < capacity_) {
        id = static_cast<BlockId>(blocks_.size());
        blocks_.emplace_back();
    } else {
        id = oldest_;
        Block& block = blocks_[id];
        evicted = Evicted{block.name,
                          block.named == Name::kChild ? std::optional(block.parent) : std::nullopt};
        unlink_unused(id);
        erase(block.name);
    }
    blocks_[id] = Block{};
    blocks_[id].users = 1;
    return id;
}

BlockPool::BlockId BlockPool::find(SequenceHash name) const {
    if (index_.empty()) return kNone;
    return index_[slot_of(name)];
}

void BlockPool::share(BlockId block) {
    Block& b = blocks_[block];
    if (b.users++ == 0) {
        unlink_unused(block);
        ++in_use_;
    }
}

void BlockPool::release(BlockId block) {
    Block& b = blocks_[block];
    STATOR_CHECK(b.users > 0, "only a used block is released");
    if (--b.users != 0) return;
    --in_use_;
    if (b.named == Name::kNone) {
        b.next = nameless_;
        nameless_ = block;
    } else {
        append_unused(block);
    }
}

bool BlockPool::name(BlockId block, SequenceHash name, std::optional<SequenceHash> parent) {
    Block& b = blocks_[block];
    STATOR_ASSERT(b.users > 0 && b.named == Name::kNone);
    if (!index_names_ || find(name) != kNone) return false;
    b.name = name;
    b.parent = parent.value_or(SequenceHash{});
    b.named = parent ? Name::kChild : Name::kRoot;
    insert(block);
    return true;
}

void BlockPool::forget_names() {
    while (oldest_ != kNone) {
        const BlockId block = oldest_;
        unlink_unused(block);
        blocks_[block].next = nameless_;
        nameless_ = block;
    }
    for (Block& b : blocks_) b.named = Name::kNone;
    std::ranges::fill(index_, kNone);
    indexed_ = 0;
}

std::vector<SequenceHash> BlockPool::names() const {
    std::vector<SequenceHash> names;
    for (const BlockId id : index_) {
        if (id != kNone) names.push_back(blocks_[id].name);
    }
    return names;
}

/// The names are hashes already; their highest bits choose the place.
std::size_t BlockPool::home(SequenceHash name) const {
    return static_cast<std::size_t>((name.value * 0x9e3779b97f4a7c15ULL) >> shift_);
}

/// Where the name is, or the free place where it would be.
std::size_t BlockPool::slot_of(SequenceHash name) const {
    const std::size_t mask = index_.size() - 1;
    std::size_t slot = home(name);
    while (index_[slot] != kNone && blocks_[index_[slot]].name != name) slot = (slot + 1) & mask;
    return slot;
}

void BlockPool::insert(BlockId block) {
    if ((indexed_ + 1) * 2 > index_.size()) grow();
    index_[slot_of(blocks_[block].name)] = block;
    ++indexed_;
}

/// Linear probing without tombstones: what follows moves up into the hole.
void BlockPool::erase(SequenceHash name) {
    const std::size_t mask = index_.size() - 1;
    std::size_t hole = slot_of(name);
    STATOR_ASSERT(index_[hole] != kNone);
    --indexed_;
    for (std::size_t slot = (hole + 1) & mask; index_[slot] != kNone; slot = (slot + 1) & mask) {
        const std::size_t wanted = home(blocks_[index_[slot]].name);
        if (((slot - wanted) & mask) >= ((slot - hole) & mask)) {
            index_[hole] = index_[slot];
            hole = slot;
        }
    }
    index_[hole] = kNone;
}

void BlockPool::grow() {
    std::vector<BlockId> old = std::move(index_);
    index_.assign(old.empty() ? kFirstIndex : old.size() * 2, kNone);
    shift_ = 64 - std::countr_zero(index_.size());
    for (const BlockId id : old) {
        if (id != kNone) index_[slot_of(blocks_[id].name)] = id;
    }
}

void BlockPool::append_unused(BlockId block) {
    Block& b = blocks_[block];
    b.before = newest_;
    b.next = kNone;
    (newest_ == kNone ? oldest_ : blocks_[newest_].next) = block;
    newest_ = block;
    ++cached_;
}

void BlockPool::unlink_unused(BlockId block) {
    Block& b = blocks_[block];
    (b.before == kNone ? oldest_ : blocks_[b.before].next) = b.next;
    (b.next == kNone ? newest_ : blocks_[b.next].before) = b.before;
    --cached_;
}

}  // namespace stator::engine::mock
