#include "stator/engine/llama/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"

namespace stator::engine::llama {

namespace {
std::size_t at(SeqId sequence) { return static_cast<std::size_t>(sequence); }
}  // namespace

PrefixCache::PrefixCache(std::uint32_t block_tokens, std::uint32_t sequences, bool reuse)
    : block_tokens_(block_tokens), reuse_(reuse), states_(sequences) {
    STATOR_CHECK(block_tokens > 0, "a block has at least one token");
    STATOR_CHECK(sequences >= 2 && sequences <= kMaxSequences, "2 to 256 sequences");
}

PrefixMatch PrefixCache::match(std::span<const TokenId> tokens,
                               std::span<const tokens::SequenceHash> hashes, std::uint64_t salt,
                               std::uint32_t max_blocks) const {
    PrefixMatch result;
    std::int64_t parent = -1;
    const std::size_t limit = std::min<std::size_t>(max_blocks, hashes.size());
    for (std::size_t i = 0; i < limit; ++i) {
        const auto found = by_hash_.find(hashes[i]);
        if (found == by_hash_.end()) break;
        const Block& block = blocks_[found->second];
        const auto want = tokens.subspan(i * block_tokens_, block_tokens_);
        if (block.parent != parent || block.salt != salt || !std::ranges::equal(block.tokens, want))
            break;
        result.blocks.push_back(found->second);
        if (block.open_holders == 0) ++result.idle_blocks;
        parent = found->second;
    }
    return result;
}

SeqId PrefixCache::open(const PrefixMatch& match, std::uint64_t salt) {
    ++tick_;
    SeqId id = -1;
    if (match.blocks.empty()) {
        id = take_id(-1);
    } else {
        const std::uint32_t last = match.blocks.back();
        const SeqId holder = holder_of(last);
        const State& state = states_[at(holder)];
        const bool ends_here = state.path.size() == match.blocks.size();
        if (state.use == Use::kIdle && ends_here) {
            id = holder;  // nobody else holds its last block: the request goes on in this very
                          // sequence
        } else {
            id = take_id(holder);
            if (id == holder) {  // the last idle sequence left is the one to share with: cut it to
                                 // the match
                while (states_[at(id)].path.size() > match.blocks.size()) leave_last(id);
                const auto end = static_cast<std::uint32_t>(match.blocks.size()) * block_tokens_;
                ops_.push_back({KvOp::Kind::kRemove, id, -1, end, kToEnd});
            } else {
                for (const std::uint32_t block : match.blocks) join(id, block);
                const auto end = static_cast<std::uint32_t>(match.blocks.size()) * block_tokens_;
                ops_.push_back({KvOp::Kind::kCopy, id, holder, 0, end});
            }
        }
    }
    State& state = states_[at(id)];
    state.sealed = !reuse_;
    state.salt = salt;
    set_open(id, true);
    for (const std::uint32_t block : state.path) blocks_[block].last_used = tick_;
    return id;
}

bool PrefixCache::commit(SeqId sequence, std::span<const TokenId> tokens, tokens::BlockHash block,
                         tokens::SequenceHash hash) {
    State& state = states_[at(sequence)];
    STATOR_ASSERT(state.use == Use::kOpen && tokens.size() == block_tokens_);
    if (state.sealed) return false;
    const std::int64_t parent =
        state.path.empty() ? std::int64_t{-1} : std::int64_t{state.path.back()};
    const auto begin = static_cast<std::uint32_t>(state.path.size()) * block_tokens_;

    const auto found = by_hash_.find(hash);
    if (found == by_hash_.end()) {
        note_stored(insert(sequence, tokens, hash), block);
        return true;
    }
    const std::uint32_t existing = found->second;
    const Block& there = blocks_[existing];
    if (there.parent != parent || there.salt != state.salt ||
        !std::ranges::equal(there.tokens, tokens)) {
        state.sealed = true;
        return false;
    }
    ops_.push_back({KvOp::Kind::kRemove, sequence, -1, begin, begin + block_tokens_});
    ops_.push_back(
        {KvOp::Kind::kCopy, sequence, holder_of(existing), begin, begin + block_tokens_});
    join(sequence, existing);
    if (blocks_[existing].open_holders++ == 0) --idle_blocks_;
    blocks_[existing].last_used = tick_;
    drop_idle_ending_in(existing);
    return true;
}

void PrefixCache::close(SeqId sequence, bool keep) {
    ++tick_;
    State& state = states_[at(sequence)];
    STATOR_ASSERT(state.use == Use::kOpen);
    set_open(sequence, false);
    for (const std::uint32_t block : state.path) blocks_[block].last_used = tick_;
    const bool of_use =
        keep && reuse_ && !state.path.empty() && blocks_[state.path.back()].holders.count() == 1;
    if (!of_use) {
        drop(sequence);
        return;
    }
    state.use = Use::kIdle;
    const auto end = static_cast<std::uint32_t>(state.path.size()) * block_tokens_;
    ops_.push_back({KvOp::Kind::kRemove, sequence, -1, end, kToEnd});
}

bool PrefixCache::evict_one() {
    const auto victim = oldest_idle(-1);
    if (!victim) return false;
    State& state = states_[at(*victim)];
    const auto begin = static_cast<std::uint32_t>(state.path.size() - 1) * block_tokens_;
    leave_last(*victim);
    ops_.push_back({KvOp::Kind::kRemove, *victim, -1, begin, kToEnd});
    if (state.path.empty() || blocks_[state.path.back()].holders.count() > 1) drop(*victim);
    return true;
}

void PrefixCache::reset() {
    for (State& state : states_) state = State{};
    blocks_.clear();
    free_blocks_.clear();
    by_hash_.clear();
    ops_.clear();
    open_count_ = live_blocks_ = idle_blocks_ = 0;
    events_.push_back({protocol::EventSeq(++event_seq_), protocol::KvCleared{}});
}

std::vector<KvOp> PrefixCache::take_ops() { return std::exchange(ops_, {}); }
std::vector<protocol::KvEvent> PrefixCache::take_events() { return std::exchange(events_, {}); }

std::optional<SeqId> PrefixCache::oldest_idle(SeqId except) const {
    std::optional<SeqId> best;
    std::uint64_t best_used = 0;
    for (std::size_t i = 0; i < states_.size(); ++i) {
        if (states_[i].use != Use::kIdle || static_cast<SeqId>(i) == except) continue;
        const std::uint64_t used = blocks_[states_[i].path.back()].last_used;
        if (!best || used < best_used) {
            best = static_cast<SeqId>(i);
            best_used = used;
        }
    }
    return best;
}

SeqId PrefixCache::holder_of(std::uint32_t block) const {
    const Holders& holders = blocks_[block].holders;
    // An idle sequence that ends here is the best: it can be taken over as it is.
    SeqId any = -1;
    for (std::size_t i = 0; i < states_.size(); ++i) {
        if (!holders.test(i)) continue;
        any = static_cast<SeqId>(i);
        if (states_[i].use == Use::kIdle && states_[i].path.back() == block) return any;
    }
    STATOR_CHECK(any >= 0, "a block in the tree has a holder");
    return any;
}

SeqId PrefixCache::take_id(SeqId except) {
    for (std::size_t i = 0; i < states_.size(); ++i) {
        if (states_[i].use == Use::kFree) return static_cast<SeqId>(i);
    }
    const auto victim = oldest_idle(except);
    if (!victim) return except;
    drop(*victim);
    return *victim;
}

void PrefixCache::join(SeqId sequence, std::uint32_t block) {
    states_[at(sequence)].path.push_back(block);
    blocks_[block].holders.set(at(sequence));
}

void PrefixCache::leave_last(SeqId sequence) {
    State& state = states_[at(sequence)];
    const std::uint32_t index = state.path.back();
    state.path.pop_back();
    Block& block = blocks_[index];
    block.holders.reset(at(sequence));
    if (block.holders.any()) return;
    note_removed(block.hash);
    by_hash_.erase(block.hash);
    block = Block{};
    free_blocks_.push_back(index);
    --live_blocks_;
    --idle_blocks_;
}

void PrefixCache::drop(SeqId sequence) {
    State& state = states_[at(sequence)];
    while (!state.path.empty()) leave_last(sequence);
    state = State{};
    ops_.push_back({KvOp::Kind::kRemove, sequence, -1, 0, kToEnd});
}

void PrefixCache::set_open(SeqId sequence, bool open) {
    State& state = states_[at(sequence)];
    for (const std::uint32_t index : state.path) {
        std::uint32_t& count = blocks_[index].open_holders;
        if (open) {
            if (count++ == 0) --idle_blocks_;
        } else if (--count == 0) {
            ++idle_blocks_;
        }
    }
    state.use = open ? Use::kOpen : Use::kFree;
    open_count_ += open ? 1 : -1;
}

void PrefixCache::drop_idle_ending_in(std::uint32_t block) {
    for (std::size_t i = 0; i < states_.size(); ++i) {
        if (states_[i].use == Use::kIdle && states_[i].path.back() == block) {
            drop(static_cast<SeqId>(i));
            return;  // the last block of an idle sequence is held by no other idle one
        }
    }
}

std::uint32_t PrefixCache::insert(SeqId sequence, std::span<const TokenId> tokens,
                                  tokens::SequenceHash hash) {
    std::uint32_t index = 0;
    if (free_blocks_.empty()) {
        index = static_cast<std::uint32_t>(blocks_.size());
        blocks_.emplace_back();
    } else {
        index = free_blocks_.back();
        free_blocks_.pop_back();
    }
    const State& state = states_[at(sequence)];
    Block& block = blocks_[index];
    block.hash = hash;
    block.salt = state.salt;
    block.parent = state.path.empty() ? -1 : static_cast<std::int64_t>(state.path.back());
    block.tokens.assign(tokens.begin(), tokens.end());
    block.open_holders = 1;
    block.last_used = tick_;
    by_hash_.emplace(hash, index);
    ++live_blocks_;
    join(sequence, index);
    return index;
}

void PrefixCache::note_stored(std::uint32_t index, tokens::BlockHash block_hash) {
    const Block& block = blocks_[index];
    std::optional<tokens::SequenceHash> parent;
    if (block.parent >= 0) parent = blocks_[static_cast<std::size_t>(block.parent)].hash;
    protocol::StoredBlock stored{block_hash, block.hash, block.tokens};
    if (!events_.empty()) {  // a chunk of prefill stores a run of blocks: one event
        auto* last = std::get_if<protocol::KvStored>(&events_.back().what);
        if (last != nullptr && parent && last->blocks.back().sequence == *parent) {
            last->blocks.push_back(std::move(stored));
            return;
        }
    }
    protocol::KvStored event{parent, {}};
    event.blocks.push_back(std::move(stored));
    events_.push_back({protocol::EventSeq(++event_seq_), std::move(event)});
}

void PrefixCache::note_removed(tokens::SequenceHash hash) {
    if (!events_.empty()) {
        auto* last = std::get_if<protocol::KvRemoved>(&events_.back().what);
        if (last != nullptr) {
            last->sequences.push_back(hash);
            return;
        }
    }
    events_.push_back({protocol::EventSeq(++event_seq_), protocol::KvRemoved{{hash}}});
}

}  // namespace stator::engine::llama
