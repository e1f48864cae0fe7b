#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "stator/protocol/kv_event.h"
#include "stator/tokens/token.h"

namespace stator::engine::llama {

using tokens::TokenId;

/// A sequence of the KV cache: what llama.cpp calls llama_seq_id.
using SeqId = std::int32_t;
inline constexpr std::uint32_t kMaxSequences = 256;  ///< llama.cpp's compile-time bound
inline constexpr std::uint32_t kToEnd = 0xffffffff;

/// One change to the KV cache's bookkeeping, to be carried out in order, before the step's batch.
struct KvOp {
    enum class Kind : std::uint8_t {
        kRemove,  ///< sequence gives up positions [begin, end)
        kCopy,    ///< sequence shares the cells that `source` holds at positions [begin, end)
    };
    Kind kind = Kind::kRemove;
    SeqId sequence = -1;
    SeqId source = -1;
    std::uint32_t begin = 0;
    std::uint32_t end = kToEnd;
    bool operator==(const KvOp&) const = default;
};

/// What a prompt could take over.
struct PrefixMatch {
    std::vector<std::uint32_t>
        blocks;  ///< indexes into the cache, root first; valid until the next change
    std::uint32_t idle_blocks =
        0;  ///< of these, how many no open sequence holds (evictable until taken)
};

/// Which sequences hold which blocks of a unified KV cache, for sharing prefixes without copying.
///
/// Blocks of `block_tokens` tokens form a tree; a sequence holds a path from the root. One block is
/// exactly block_tokens cells however many sequences hold it: a sequence that computed a block
/// which is already there gives its own cells up and shares the other's. A sequence is *open* (a
/// request runs in it) or *idle* (kept for reuse; then nobody else holds its last block, or it
/// would be redundant and is dropped). Idle blocks are evicted one at a time, least recently used
/// first, from the end of a path.
///
/// Blocks are found by sequence hash and then compared token by token, with their parent and salt:
/// a hash collision costs a cache miss, never a wrong answer.
///
/// Pure bookkeeping, single-threaded: changes come out as KvOps (take_ops) and KV events
/// (take_events).
class PrefixCache {
  public:
    /// `sequences` in 2..kMaxSequences. Without `reuse` nothing is shared or kept.
    PrefixCache(std::uint32_t block_tokens, std::uint32_t sequences, bool reuse);

    /// Longest resident prefix of `tokens`, at most `max_blocks`. `hashes[i]` is block i's sequence
    /// hash.
    [[nodiscard]] PrefixMatch match(std::span<const TokenId> tokens,
                                    std::span<const tokens::SequenceHash> hashes,
                                    std::uint64_t salt, std::uint32_t max_blocks) const;

    /// Opens a sequence that holds the matched blocks. Needs can_open(). May evict an idle sequence
    /// for its id.
    SeqId open(const PrefixMatch& match, std::uint64_t salt);
    [[nodiscard]] bool can_open() const { return open_count_ + 1 < states_.size(); }

    /// The open sequence has computed its next whole block. True if it shares or owns it from now
    /// on; false if the block can't be shared (reuse off, hash collision): its cells then stay the
    /// sequence's own, and so do all after it. Freed cells, if any, show in used_blocks() not
    /// growing.
    bool commit(SeqId sequence, std::span<const TokenId> tokens, tokens::BlockHash block,
                tokens::SequenceHash hash);

    /// The open sequence is done. Its whole blocks are kept where that is of use, the rest is
    /// removed.
    void close(SeqId sequence, bool keep);

    /// Frees one idle block. False if there is none.
    bool evict_one();

    /// Forgets everything; the caller clears the KV cache itself. All sequences are free
    /// afterwards.
    void reset();

    [[nodiscard]] std::uint32_t block_tokens() const { return block_tokens_; }
    [[nodiscard]] std::uint32_t used_blocks() const { return live_blocks_; }
    /// Blocks that only idle sequences hold.
    [[nodiscard]] std::uint32_t idle_blocks() const { return idle_blocks_; }
    /// Blocks the sequence holds.
    [[nodiscard]] std::uint32_t held_blocks(SeqId sequence) const {
        return static_cast<std::uint32_t>(states_[static_cast<std::size_t>(sequence)].path.size());
    }

    [[nodiscard]] std::vector<KvOp> take_ops();
    /// Events since the last call, numbered on.
    [[nodiscard]] std::vector<protocol::KvEvent> take_events();

  private:
    using Holders = std::bitset<kMaxSequences>;
    struct Block {
        tokens::SequenceHash hash;
        std::uint64_t salt = 0;
        std::int64_t parent = -1;
        std::vector<TokenId> tokens;
        Holders holders;
        std::uint32_t open_holders = 0;
        std::uint64_t last_used = 0;
    };
    enum class Use : std::uint8_t { kFree, kOpen, kIdle };
    struct State {
        Use use = Use::kFree;
        bool sealed = false;  ///< a block could not be shared: none after it can
        std::uint64_t salt = 0;
        std::vector<std::uint32_t> path;
    };

    [[nodiscard]] std::optional<SeqId> oldest_idle(SeqId except) const;
    [[nodiscard]] SeqId holder_of(std::uint32_t block) const;
    [[nodiscard]] SeqId take_id(SeqId except);
    void join(SeqId sequence, std::uint32_t block);
    void leave_last(SeqId sequence);
    void drop(SeqId sequence);
    void set_open(SeqId sequence, bool open);
    void drop_idle_ending_in(std::uint32_t block);
    std::uint32_t insert(SeqId sequence, std::span<const TokenId> tokens,
                         tokens::SequenceHash hash);
    void note_stored(std::uint32_t block, tokens::BlockHash block_hash);
    void note_removed(tokens::SequenceHash hash);

    std::uint32_t block_tokens_;
    bool reuse_;
    std::vector<State> states_;
    std::vector<Block> blocks_;
    std::vector<std::uint32_t> free_blocks_;
    std::unordered_map<tokens::SequenceHash, std::uint32_t> by_hash_;
    std::uint32_t open_count_ = 0;
    std::uint32_t live_blocks_ = 0;
    std::uint32_t idle_blocks_ = 0;
    std::uint64_t tick_ = 0;
    std::uint64_t event_seq_ = 0;
    std::vector<KvOp> ops_;
    std::vector<protocol::KvEvent> events_;
};

}  // namespace stator::engine::llama
