#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "stator/tokens/token.h"

namespace stator::engine::mock {

using tokens::SequenceHash;

/// The device's KV memory of one rank: blocks with reference counts, an index of those that hold a
/// named prefix, and the order in which the unused ones of these are given up: least recently used
/// first. Memory grows with the blocks that were ever used. Not thread-safe.
class BlockPool {
  public:
    using BlockId = std::uint32_t;
    static constexpr BlockId kNone = ~BlockId{0};

    /// A named block that lost its place.
    struct Evicted {
        SequenceHash name;
        std::optional<SequenceHash> parent;
    };

    BlockPool(std::uint32_t blocks, bool index_names);

    /// Blocks that allocate() could give: those never used, without a name, or unused.
    [[nodiscard]] std::uint32_t available() const { return capacity_ - in_use_; }
    [[nodiscard]] std::uint32_t in_use() const { return in_use_; }
    [[nodiscard]] std::uint32_t capacity() const { return capacity_; }
    /// Named blocks that nobody uses.
    [[nodiscard]] std::uint32_t cached() const { return cached_; }

    /// A block without name or content, used once. There must be one available (STATOR_CHECK). A
    /// named block that had to go for it is handed out in `evicted`.
    [[nodiscard]] BlockId allocate(std::optional<Evicted>& evicted);
    /// The named block, without using it; kNone where there is none.
    [[nodiscard]] BlockId find(SequenceHash name) const;
    /// Uses it once more.
    void share(BlockId block);
    /// Uses it once less. Unused, a named block is kept for reuse as the most recently used.
    void release(BlockId block);
    /// Names a block that is in use. False: another one has this name already, or names are off;
    /// then the block stays nameless.
    bool name(BlockId block, SequenceHash name, std::optional<SequenceHash> parent);
    /// Takes every name away; blocks in use stay in use.
    void forget_names();

    /// What the block's KV was computed from, as the model sees it.
    [[nodiscard]] SequenceHash content(BlockId block) const { return blocks_[block].content; }
    void set_content(BlockId block, SequenceHash content) { blocks_[block].content = content; }

    /// All names, unsorted.
    [[nodiscard]] std::vector<SequenceHash> names() const;

  private:
    enum class Name : std::uint8_t { kNone, kRoot, kChild };
    struct Block {
        SequenceHash name;
        SequenceHash parent;
        SequenceHash content;
        BlockId before = kNone;  ///< in the order of use, while named and unused …
        BlockId next = kNone;    ///< … else the next nameless free block
        std::uint32_t users = 0;
        Name named = Name::kNone;
    };

    [[nodiscard]] std::size_t home(SequenceHash name) const;
    [[nodiscard]] std::size_t slot_of(SequenceHash name) const;
    void insert(BlockId block);
    void erase(SequenceHash name);
    void grow();
    void append_unused(BlockId block);
    void unlink_unused(BlockId block);

    std::vector<Block> blocks_;
    std::vector<BlockId> index_;  ///< a power of two, at most half used; linear probing
    std::size_t indexed_ = 0;
    int shift_ = 64;
    std::uint32_t capacity_;
    std::uint32_t in_use_ = 0;
    std::uint32_t cached_ = 0;
    bool index_names_;
    BlockId oldest_ = kNone;
    BlockId newest_ = kNone;
    BlockId nameless_ = kNone;  ///< used before, free, without a name
};

}  // namespace stator::engine::mock
