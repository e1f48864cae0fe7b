#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "stator/tokens/hash.h"
#include "stator/tokens/token.h"

namespace stator::tokens {

/// Tokens in a row that grows at its end and can be cut, with the hashes of its complete blocks:
/// block i is tokens [i * block_size, (i + 1) * block_size). A block is hashed once, when its last
/// token arrives; what follows the last complete block has no hash yet. Holds text only: prompts
/// with media hash their blocks with block_hash(). Not thread-safe. The spans are valid until the
/// next change.
class TokenSequence {
  public:
    /// `seed` comes from hash_seed(). A block size of 0 is a programming error (STATOR_CHECK).
    explicit TokenSequence(std::size_t block_size, std::uint64_t seed = hash_seed());

    void push(TokenId token);
    /// `tokens` must not be a part of this sequence itself.
    void append(std::span<const TokenId> tokens);
    /// Keeps the first `n` tokens and the hashes of the blocks complete among them. Nothing where
    /// there are no more.
    void truncate(std::size_t n);
    /// Memory for `n` tokens and their hashes in all.
    void reserve(std::size_t n);

    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }
    [[nodiscard]] std::size_t block_size() const { return block_size_; }
    [[nodiscard]] std::uint64_t seed() const { return hasher_.seed(); }
    [[nodiscard]] std::size_t complete_blocks() const { return blocks_; }

    [[nodiscard]] std::span<const TokenId> tokens() const {
        return std::span(tokens_).first(size_);
    }
    /// The tokens of complete block `i`.
    [[nodiscard]] std::span<const TokenId> block(std::size_t i) const;
    [[nodiscard]] std::span<const BlockHash> block_hashes() const {
        return std::span(block_hashes_).first(blocks_);
    }
    /// sequence_hashes()[i] names all tokens up to the end of block i.
    [[nodiscard]] std::span<const SequenceHash> sequence_hashes() const {
        return std::span(sequence_hashes_).first(blocks_);
    }

  private:
    void make_room(std::size_t tokens);
    void hash_complete_blocks();

    std::size_t block_size_;
    BlockHasher hasher_;
    std::size_t size_ = 0;    // tokens
    std::size_t blocks_ = 0;  // complete ones: all are hashed, always
    // Longer than what is in use: a token costs a copy, not the upkeep of three vectors.
    std::vector<TokenId> tokens_;
    std::vector<BlockHash> block_hashes_;
    std::vector<SequenceHash> sequence_hashes_;
};

}  // namespace stator::tokens
