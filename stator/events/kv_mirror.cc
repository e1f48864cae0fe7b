#include "stator/events/kv_mirror.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>
#include <variant>

#include "stator/codec/msgpack.h"

namespace stator::events {
namespace {

using protocol::KvTier;

constexpr std::size_t kFirstSlots = 64;
constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

}  // namespace

std::size_t KvMirror::home(std::uint64_t sequence) const {
    return static_cast<std::size_t>((sequence * 0x9E37'79B9'7F4A'7C15U) >> shift_);
}

/// Its slot, or the free one where it would go.
std::size_t KvMirror::locate(std::uint64_t sequence) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = home(sequence);
    while (use_[at] != kFree && slots_[at].sequence != sequence) at = (at + 1) & mask;
    return at;
}

void KvMirror::grow() {
    const std::size_t slots = slots_.empty() ? kFirstSlots : slots_.size() * 2;
    auto old_slots = std::exchange(slots_, std::vector<Slot>(slots));
    auto old_use = std::exchange(use_, std::vector<Use>(slots, kFree));
    shift_ = 64 - std::countr_zero(slots);
    for (std::size_t i = 0; i < old_slots.size(); ++i) {
        if (old_use[i] == kFree) continue;
        const std::size_t at = locate(old_slots[i].sequence);
        slots_[at] = old_slots[i];
        use_[at] = old_use[i];
    }
}

void KvMirror::store(const Slot& slot, Use use) {
    if ((size_ + 1) * 8 > slots_.size() * 5) grow();
    const std::size_t at = locate(slot.sequence);
    if (use_[at] == kFree) ++size_;
    slots_[at] = slot;
    use_[at] = static_cast<Use>((use_[at] & ~kChild) | use);
}

void KvMirror::remove(std::uint64_t sequence, Tiers from) {
    if (size_ == 0) return;
    std::size_t hole = locate(sequence);
    if (use_[hole] == kFree) return;
    if (const auto left = static_cast<Use>(use_[hole] & ~from); (left & ~kChild) != 0) {
        use_[hole] = left;
        return;
    }
    --size_;
    // Those behind the hole move up if the hole lies between their home and them.
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t at = (hole + 1) & mask; use_[at] != kFree; at = (at + 1) & mask) {
        const std::size_t wanted = home(slots_[at].sequence);
        if (((at - wanted) & mask) < ((at - hole) & mask)) continue;
        slots_[hole] = slots_[at];
        use_[hole] = use_[at];
        hole = at;
    }
    use_[hole] = kFree;
}

void KvMirror::clear() {
    slots_ = {};
    use_ = {};
    size_ = 0;
    sparse_ = false;
    shift_ = 64;
}

void KvMirror::apply(const protocol::KvEvent& event) {
    if (const auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
        if (stored->group == protocol::KvGroup::kSparse) {
            sparse_ = true;
            return;
        }
        const Use tier = bit(stored->tier);
        Use use = stored->parent ? tier | kChild : tier;
        std::uint64_t parent = stored->parent ? stored->parent->value : 0;
        for (const auto& block : stored->blocks) {
            store({block.sequence.value, block.block.value, parent}, use);
            parent = block.sequence.value;
            use = tier | kChild;
        }
    } else if (const auto* removed = std::get_if<protocol::KvRemoved>(&event.what)) {
        if (removed->group == protocol::KvGroup::kSparse) return;
        const Tiers from = bit(removed->tier);
        for (const auto sequence : removed->sequences) remove(sequence.value, from);
    } else {
        const bool sparse = sparse_;  // its model is still the same
        clear();
        sparse_ = sparse;
    }
}

std::optional<KvMirror::Block> KvMirror::find(tokens::SequenceHash sequence) const {
    if (size_ == 0) return std::nullopt;
    const std::size_t at = locate(sequence.value);
    if (use_[at] == kFree) return std::nullopt;
    Block out{sequence, tokens::BlockHash(slots_[at].block), std::nullopt,
              static_cast<Tiers>(use_[at] & ~kChild)};
    if ((use_[at] & kChild) != 0) out.parent = tokens::SequenceHash(slots_[at].parent);
    return out;
}

std::vector<KvMirror::Block> KvMirror::sorted() const {
    std::vector<Block> out;
    out.reserve(size_);
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (use_[i] != kFree) out.push_back(*find(tokens::SequenceHash(slots_[i].sequence)));
    }
    std::ranges::sort(out);
    return out;
}

bool KvMirror::operator==(const KvMirror& other) const {
    if (size_ != other.size_ || sparse_ != other.sparse_) return false;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (use_[i] == kFree) continue;
        const tokens::SequenceHash sequence(slots_[i].sequence);
        if (find(sequence) != other.find(sequence)) return false;
    }
    return true;
}

/// Slots in an order in which a block comes after its parent, cut into chains.
struct KvMirror::Order {
    std::vector<std::uint32_t> slots;
    std::vector<std::size_t> chains;  // where each begins
};

KvMirror::Order KvMirror::order() const {
    // Children as linked lists: first child of a slot, next child of the same parent.
    std::vector<std::uint32_t> first(slots_.size(), kNone);
    std::vector<std::uint32_t> next(slots_.size(), kNone);
    std::vector<std::uint32_t> starts;
    for (std::uint32_t i = 0; i < slots_.size(); ++i) {
        if (use_[i] == kFree) continue;
        const bool child = (use_[i] & kChild) != 0;
        const std::size_t parent = child ? locate(slots_[i].parent) : i;
        if (!child || use_[parent] == kFree) {
            starts.push_back(i);
        } else {
            next[i] = first[parent];
            first[parent] = i;
        }
    }
    Order out;
    out.slots.reserve(size_);
    std::vector<bool> done(slots_.size(), false);
    const auto follow = [&](std::uint32_t start) {
        std::vector<std::uint32_t> open{start};
        while (!open.empty()) {
            std::uint32_t at = open.back();
            open.pop_back();
            if (done[at]) continue;
            out.chains.push_back(out.slots.size());
            while (at != kNone && !done[at]) {
                done[at] = true;
                out.slots.push_back(at);
                const std::uint32_t child = first[at];
                if (child == kNone) break;
                for (std::uint32_t c = next[child]; c != kNone; c = next[c]) open.push_back(c);
                at = child;
            }
        }
    };
    for (const std::uint32_t start : starts) follow(start);
    // Only blocks that are their own ancestors are left, which an engine in order never has.
    for (std::uint32_t i = 0; i < slots_.size() && out.slots.size() < size_; ++i) {
        if (use_[i] != kFree) follow(i);
    }
    return out;
}

/// Slots in a row of a chain that lie in one memory: Order::slots[begin .. end).
struct KvMirror::Run {
    std::size_t begin = 0;
    std::size_t end = 0;
    protocol::KvTier tier = protocol::KvTier::kDevice;
};

std::vector<KvMirror::Run> KvMirror::runs(const Order& order) const {
    std::vector<Run> out;
    for (const auto tier : {KvTier::kDevice, KvTier::kHost, KvTier::kDisk}) {
        for (std::size_t c = 0; c < order.chains.size(); ++c) {
            const std::size_t end =
                c + 1 < order.chains.size() ? order.chains[c + 1] : order.slots.size();
            bool in_run = false;
            for (std::size_t i = order.chains[c]; i < end; ++i) {
                const bool here = (use_[order.slots[i]] & bit(tier)) != 0;
                if (here && !in_run) out.push_back({i, i, tier});
                if (here) out.back().end = i + 1;
                in_run = here;
            }
        }
    }
    return out;
}

void KvMirror::append_state(std::string& out) const {
    const Order order = this->order();
    const std::vector<Run> runs = this->runs(order);
    std::vector<std::uint64_t> blocks;
    std::vector<std::uint64_t> hashes;
    out.reserve(out.size() + 16 + order.slots.size() * 16 + runs.size() * 64);
    codec::MsgpackWriter w(out);
    w.map(1).string("events").array(runs.size() + (sparse_ ? 1U : 0U));
    if (sparse_) {
        w.map(4).string("op").string("stored").string("group").number(std::uint64_t{1});
        w.string("blocks").binary({}).string("hashes").binary({});
    }
    for (const Run& run : runs) {
        blocks.clear();
        hashes.clear();
        for (std::size_t i = run.begin; i < run.end; ++i) {
            blocks.push_back(slots_[order.slots[i]].block);
            hashes.push_back(slots_[order.slots[i]].sequence);
        }
        const std::uint32_t head = order.slots[run.begin];
        const bool child = (use_[head] & kChild) != 0;
        const bool says_tier = run.tier != KvTier::kDevice;
        w.map(3 + (child ? 1U : 0U) + (says_tier ? 1U : 0U)).string("op").string("stored");
        if (child) w.string("parent").number(slots_[head].parent);
        if (says_tier) w.string("tier").string(to_string(run.tier));
        w.string("blocks");
        codec::append_u64_binary(w, blocks);
        w.string("hashes");
        codec::append_u64_binary(w, hashes);
    }
}

}  // namespace stator::events
