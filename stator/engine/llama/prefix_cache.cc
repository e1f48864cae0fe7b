#include "stator/engine/llama/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"

namespace stator::engine::llama {

namespace {
std::size_t at(SeqId sequence) { return static_cast<std::size_t>(sequence); }
}  // namespace

PrefixCache::PrefixCache(std::uint32_t block_tokens, std::uint32_t sequences,
                         std::uint32_t parked_limit, bool reuse)
    : block_tokens_(block_tokens), parked_limit_(parked_limit), reuse_(reuse), states_(sequences) {
    STATOR_CHECK(block_tokens > 0, "a block has at least one token");
    STATOR_CHECK(sequences >= 1 && sequences <= kMaxSequences, "1 to 256 sequences");
    for (std::uint32_t i = sequences; i-- > 0;) free_sequences_.push_back(static_cast<SeqId>(i));
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
        if (block.parent != parent || block.salt != salt ||
            !std::ranges::equal(block.tokens, want)) {
            break;
        }
        result.blocks.push_back(found->second);
        parent = found->second;
    }
    std::uint32_t of_segment = 0;
    for (std::size_t i = 0; i < result.blocks.size(); ++i) {
        const Block& block = blocks_[result.blocks[i]];
        if (block.holders.any()) continue;
        ++result.parked_blocks;
        ++of_segment;
        const bool last =
            i + 1 == result.blocks.size() || blocks_[result.blocks[i + 1]].segment != block.segment;
        if (!last) continue;
        const auto size = static_cast<std::uint32_t>(segments_.at(*block.segment).blocks.size());
        result.slack_blocks = std::max(result.slack_blocks, size - of_segment);
        of_segment = 0;
    }
    return result;
}

SeqId PrefixCache::open(const PrefixMatch& match, std::uint64_t salt) {
    ++tick_;
    const SeqId id = free_sequences_.back();
    free_sequences_.pop_back();
    State& state = states_[at(id)];
    state = State{.open = true, .sealed = !reuse_, .salt = salt, .path = {}};
    const auto first_parked = std::ranges::find_if(
        match.blocks, [&](std::uint32_t b) { return blocks_[b].holders.none(); });
    const auto shared = static_cast<std::uint32_t>(first_parked - match.blocks.begin());
    if (shared > 0) {
        const SeqId source = holder_of(match.blocks[shared - 1]);
        ops_.push_back({.kind = KvOp::Kind::kCopy,
                        .sequence = id,
                        .source = source,
                        .segment = {},
                        .begin = 0,
                        .end = shared * block_tokens_});
    }
    load(id, std::span(match.blocks).subspan(shared));
    for (const std::uint32_t block : match.blocks) {
        if (blocks_[block].segment) segments_.at(*blocks_[block].segment).last_used = tick_;
        join(id, block);
    }
    return id;
}

/// Brings parked blocks, a path, into the sequence: one op for each segment they lie in.
void PrefixCache::load(SeqId sequence, std::span<const std::uint32_t> blocks) {
    for (std::size_t i = 0; i < blocks.size();) {
        const SegmentId segment = *blocks_[blocks[i]].segment;
        std::size_t end = i + 1;
        while (end < blocks.size() && blocks_[blocks[end]].segment == segment) ++end;
        ops_.push_back({.kind = KvOp::Kind::kLoad,
                        .sequence = sequence,
                        .source = -1,
                        .segment = segment,
                        .begin = blocks_[blocks[i]].depth * block_tokens_,
                        .end = (blocks_[blocks[end - 1]].depth + 1) * block_tokens_});
        i = end;
    }
}

bool PrefixCache::commit(SeqId sequence, std::span<const TokenId> tokens, tokens::BlockHash block,
                         tokens::SequenceHash hash) {
    State& state = states_[at(sequence)];
    STATOR_ASSERT(state.open && tokens.size() == block_tokens_);
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
    if (there.holders.any()) {  // somebody's cells hold the same: one copy is enough
        const std::uint32_t end = begin + block_tokens_;
        ops_.push_back({KvOp::Kind::kRemove, sequence, -1, {}, begin, end});
        ops_.push_back({KvOp::Kind::kCopy, sequence, holder_of(existing), {}, begin, end});
    }
    join(sequence, existing);
    return true;
}

void PrefixCache::close(SeqId sequence) {
    ++tick_;
    State& state = states_[at(sequence)];
    STATOR_ASSERT(state.open);
    std::vector<std::uint32_t> to_park;
    for (const std::uint32_t index : state.path) {
        Block& block = blocks_[index];
        block.holders.reset(at(sequence));
        if (block.segment) segments_.at(*block.segment).last_used = tick_;
        if (block.holders.any()) continue;
        --open_blocks_;
        if (!block.segment) to_park.push_back(index);
    }
    // Blocks parked earlier may lie between those that are not yet: each run without gaps is saved
    // on its own.
    for (std::size_t i = 0; i < to_park.size();) {
        std::size_t end = i + 1;
        while (end < to_park.size() && end - i < kSegmentBlocks &&
               blocks_[to_park[end]].depth == blocks_[to_park[end - 1]].depth + 1) {
            ++end;
        }
        park(sequence, std::span(to_park).subspan(i, end - i));
        i = end;
    }
    ops_.push_back({KvOp::Kind::kRemove, sequence, -1, {}, 0, kToEnd});
    state = State{};
    free_sequences_.push_back(sequence);
    while (parked_blocks_ > parked_limit_) forget_oldest_segment();
}

void PrefixCache::park(SeqId sequence, std::span<const std::uint32_t> blocks) {
    const SegmentId id(++last_segment_);
    segments_.emplace(id, Segment{{blocks.begin(), blocks.end()}, tick_});
    for (const std::uint32_t index : blocks) {
        Block& block = blocks_[index];
        block.segment = id;
        if (block.parent >= 0) ++blocks_[static_cast<std::size_t>(block.parent)].parked_children;
    }
    parked_blocks_ += static_cast<std::uint32_t>(blocks.size());
    ops_.push_back({KvOp::Kind::kSave, sequence, -1, id,
                    blocks_[blocks.front()].depth * block_tokens_,
                    (blocks_[blocks.back()].depth + 1) * block_tokens_});
}

bool PrefixCache::is_leaf(const Segment& segment) const {
    for (std::size_t i = 0; i < segment.blocks.size(); ++i) {
        const std::uint32_t own = i + 1 < segment.blocks.size() ? 1 : 0;
        if (blocks_[segment.blocks[i]].parked_children > own) return false;
    }
    return true;
}

void PrefixCache::forget_oldest_segment() {
    auto oldest = segments_.end();
    for (auto it = segments_.begin(); it != segments_.end(); ++it) {
        const bool older = oldest == segments_.end() ||
                           it->second.last_used < oldest->second.last_used ||
                           (it->second.last_used == oldest->second.last_used &&
                            it->first.value > oldest->first.value);
        if (older && is_leaf(it->second)) oldest = it;
    }
    STATOR_CHECK(oldest != segments_.end(), "a tree of segments has a leaf");
    ops_.push_back({KvOp::Kind::kDrop, -1, -1, oldest->first, 0, 0});
    const Segment segment = std::move(oldest->second);
    segments_.erase(oldest);
    parked_blocks_ -= static_cast<std::uint32_t>(segment.blocks.size());
    for (auto it = segment.blocks.rbegin(); it != segment.blocks.rend(); ++it) {
        Block& block = blocks_[*it];
        block.segment.reset();
        if (block.parent >= 0) --blocks_[static_cast<std::size_t>(block.parent)].parked_children;
        if (block.holders.none()) erase(*it);
    }
}

void PrefixCache::reset() {
    for (const auto& [id, segment] : segments_)
        ops_.push_back({KvOp::Kind::kDrop, -1, -1, id, 0, 0});
    std::erase_if(ops_, [](const KvOp& op) { return op.kind != KvOp::Kind::kDrop; });
    free_sequences_.clear();
    for (std::size_t i = states_.size(); i-- > 0;) free_sequences_.push_back(static_cast<SeqId>(i));
    for (State& state : states_) state = State{};
    blocks_.clear();
    free_blocks_.clear();
    by_hash_.clear();
    segments_.clear();
    open_blocks_ = parked_blocks_ = 0;
    events_.push_back({protocol::EventSeq(++event_seq_), protocol::KvCleared{}});
}

std::vector<KvOp> PrefixCache::take_ops() { return std::exchange(ops_, {}); }
std::vector<protocol::KvEvent> PrefixCache::take_events() { return std::exchange(events_, {}); }

SeqId PrefixCache::holder_of(std::uint32_t block) const {
    const Holders& holders = blocks_[block].holders;
    for (std::size_t i = 0; i < states_.size(); ++i) {
        if (holders.test(i)) return static_cast<SeqId>(i);
    }
    STATOR_CHECK(false, "a block in cells has a holder");
    return -1;
}

void PrefixCache::join(SeqId sequence, std::uint32_t block) {
    states_[at(sequence)].path.push_back(block);
    if (blocks_[block].holders.none()) ++open_blocks_;
    blocks_[block].holders.set(at(sequence));
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
    block.parent = state.path.empty() ? std::int64_t{-1} : std::int64_t{state.path.back()};
    block.depth = static_cast<std::uint32_t>(state.path.size());
    block.tokens.assign(tokens.begin(), tokens.end());
    by_hash_.emplace(hash, index);
    join(sequence, index);
    return index;
}

void PrefixCache::erase(std::uint32_t index) {
    Block& block = blocks_[index];
    note_removed(block.hash);
    by_hash_.erase(block.hash);
    block = Block{};
    free_blocks_.push_back(index);
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
