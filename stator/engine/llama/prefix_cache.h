#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "stator/base/strong.h"
#include "stator/protocol/kv_event.h"
#include "stator/tokens/token.h"

namespace stator::engine::llama {

using tokens::TokenId;

/// A sequence of the KV cache: what llama.cpp calls llama_seq_id.
using SeqId = std::int32_t;
inline constexpr std::uint32_t kMaxSequences = 256;  ///< llama.cpp's compile-time bound
inline constexpr std::uint32_t kToEnd = 0xffffffff;

/// A run of blocks whose KV is kept in host memory.
using SegmentId = Strong<std::uint64_t, struct SegmentIdTag>;

/// One change to the KV cache, to be carried out in order, before the step's batch. Positions are
/// [begin, end).
struct KvOp {
    enum class Kind : std::uint8_t {
        kRemove,  ///< `sequence` gives up the positions
        kCopy,    ///< `sequence` shares the cells that `source` holds at the positions
        kSave,    ///< the positions of `sequence` are copied to host memory as `segment`
        kLoad,    ///< `sequence` gets the positions from `segment` (all of it passes through free
                  ///< cells)
        kDrop,    ///< `segment` is forgotten
    };
    Kind kind = Kind::kRemove;
    SeqId sequence = -1;
    SeqId source = -1;
    SegmentId segment;
    std::uint32_t begin = 0;
    std::uint32_t end = kToEnd;
    bool operator==(const KvOp&) const = default;
};

/// What a prompt could take over.
struct PrefixMatch {
    std::vector<std::uint32_t>
        blocks;  ///< indexes into the cache, root first; valid until the next change
    std::uint32_t parked_blocks =
        0;  ///< of these, how many take cells when opened (the rest is shared)
    std::uint32_t slack_blocks =
        0;  ///< cells needed for a moment beyond that, while segments are cut
};

/// Which sequences of a unified KV cache hold which blocks, and which blocks are parked in host
/// memory.
///
/// Blocks of `block_tokens` tokens form a tree; an open sequence (a request runs in it) holds a
/// path from the root. One block is exactly block_tokens cells however many sequences hold it: a
/// sequence that computed a block which another already holds gives its own cells up and shares the
/// other's. A block that no open sequence holds any more is parked: copied to host memory, in
/// segments of up to kSegmentBlocks, and its cells are freed. That keeps the cells few and close
/// together: attention passes over all cells up to the last one in use, and a cache full of idle
/// prefixes would slow every request down by a third. For a 135M model on one thread, parking costs
/// 11 µs of CPU per token, taking back 4 µs, computing again 1,900 µs (docs/adr/0005).
///
/// Parked segments are forgotten least recently used first, children before parents, beyond
/// `parked_limit` blocks.
///
/// Blocks are found by sequence hash and then compared token by token, with their parent and salt:
/// a hash collision costs a cache miss, never a wrong answer.
///
/// Pure bookkeeping, single-threaded: changes come out as KvOps (take_ops) and KV events
/// (take_events).
class PrefixCache {
  public:
    static constexpr std::uint32_t kSegmentBlocks = 32;

    /// `sequences` in 1..kMaxSequences. Without `reuse` nothing is shared or parked.
    PrefixCache(std::uint32_t block_tokens, std::uint32_t sequences, std::uint32_t parked_limit,
                bool reuse);

    /// Longest known prefix of `tokens`, at most `max_blocks`. `hashes[i]` is block i's sequence
    /// hash.
    [[nodiscard]] PrefixMatch match(std::span<const TokenId> tokens,
                                    std::span<const tokens::SequenceHash> hashes,
                                    std::uint64_t salt, std::uint32_t max_blocks) const;

    /// Opens a sequence that holds the matched blocks. Needs can_open().
    SeqId open(const PrefixMatch& match, std::uint64_t salt);
    [[nodiscard]] bool can_open() const { return !free_sequences_.empty(); }

    /// The open sequence has computed its next whole block. True if it is in the tree from now on;
    /// false if it can't be (reuse off, hash collision): its cells then stay the sequence's own,
    /// and so do all after it.
    bool commit(SeqId sequence, std::span<const TokenId> tokens, tokens::BlockHash block,
                tokens::SequenceHash hash);

    /// The open sequence is done. Its whole blocks are parked, unless others hold them; its cells
    /// are freed.
    void close(SeqId sequence);

    /// Forgets everything, parked segments included; the caller clears the KV cache itself.
    void reset();

    /// Blocks in cells, each counted once.
    [[nodiscard]] std::uint32_t open_blocks() const { return open_blocks_; }
    /// Blocks known only in host memory.
    [[nodiscard]] std::uint32_t idle_blocks() const { return known_blocks() - open_blocks_; }
    [[nodiscard]] std::uint32_t known_blocks() const {
        return static_cast<std::uint32_t>(by_hash_.size());
    }
    /// Blocks of the open sequence that are in the tree.
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
        std::uint32_t depth = 0;  ///< blocks before it
        std::vector<TokenId> tokens;
        Holders holders;  ///< open sequences
        std::optional<SegmentId> segment;
        std::uint32_t parked_children = 0;
    };
    struct Segment {
        std::vector<std::uint32_t> blocks;  ///< a path: each the parent of the next
        std::uint64_t last_used = 0;
    };
    struct State {
        bool open = false;
        bool sealed = false;  ///< a block could not be put into the tree: none after it can
        std::uint64_t salt = 0;
        std::vector<std::uint32_t> path;
    };

    void join(SeqId sequence, std::uint32_t block);
    [[nodiscard]] SeqId holder_of(std::uint32_t block) const;
    void load(SeqId sequence, std::span<const std::uint32_t> blocks);
    void park(SeqId sequence, std::span<const std::uint32_t> blocks);
    void forget_oldest_segment();
    [[nodiscard]] bool is_leaf(const Segment& segment) const;
    std::uint32_t insert(SeqId sequence, std::span<const TokenId> tokens,
                         tokens::SequenceHash hash);
    void erase(std::uint32_t block);
    void note_stored(std::uint32_t block, tokens::BlockHash block_hash);
    void note_removed(tokens::SequenceHash hash);

    std::uint32_t block_tokens_;
    std::uint32_t parked_limit_;
    bool reuse_;
    std::vector<State> states_;
    std::vector<SeqId> free_sequences_;
    std::vector<Block> blocks_;
    std::vector<std::uint32_t> free_blocks_;
    std::unordered_map<tokens::SequenceHash, std::uint32_t> by_hash_;
    std::unordered_map<SegmentId, Segment> segments_;
    std::uint32_t open_blocks_ = 0;
    std::uint32_t parked_blocks_ = 0;
    std::uint64_t last_segment_ = 0;
    std::uint64_t tick_ = 0;
    std::uint64_t event_seq_ = 0;
    std::vector<KvOp> ops_;
    std::vector<protocol::KvEvent> events_;
};

}  // namespace stator::engine::llama
