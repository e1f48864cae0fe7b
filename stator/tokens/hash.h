#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "stator/tokens/token.h"

namespace stator::tokens {

/// What two prefixes must have in common, besides their tokens, to be the same: LoRA adapter,
/// namespace (salt). seed = 1337 + XXH3-64(lora, 0) + XXH3-64(namespace, 1), modulo 2^64; an empty
/// string adds nothing. Source: the public hash of crate dynamo-kv-router 1.6.1, checked by the
/// golden vectors.
[[nodiscard]] std::uint64_t hash_seed(std::string_view lora = {}, std::string_view name_space = {});

/// XXH3-64 over the tokens as little-endian u32, then the media hashes, ascending (asserted), as
/// little-endian u64.
[[nodiscard]] BlockHash block_hash(std::span<const TokenId> tokens, std::uint64_t seed,
                                   std::span<const std::uint64_t> sorted_media = {});

/// What stands in a prompt for the `row`-th row of a media item's embeddings: kFirstMediaToken plus
/// 31 bits of XXH3-64(digest ‖ row as little-endian u32). So prompts that differ in a picture
/// differ in tokens, in every hash and every comparison made of them. `digest`: 32 bytes.
[[nodiscard]] TokenId media_token(std::span<const std::uint8_t> digest, std::uint32_t row);

/// The first block's: its block hash. Any other's: XXH3-64(parent ‖ block, 1337).
[[nodiscard]] SequenceHash sequence_hash(BlockHash first);
[[nodiscard]] SequenceHash sequence_hash(SequenceHash parent, BlockHash block);

/// Hashes many blocks with one seed: the same hashes as above, at a half to a third of the time. Of
/// a block over 240 bytes XXH3 would otherwise make a secret from the seed each time; this makes it
/// once. Keeps no state; any number of threads.
class BlockHasher {
  public:
    explicit BlockHasher(std::uint64_t seed = hash_seed());

    [[nodiscard]] std::uint64_t seed() const { return seed_; }
    [[nodiscard]] BlockHash block(std::span<const TokenId> tokens) const;
    /// Hashes `tokens`, a multiple of `block_size`; `blocks` and `sequences` have room for as many
    /// hashes as there are blocks. `parent` comes before the first; none = it is a root.
    void chain(std::span<const TokenId> tokens, std::size_t block_size, const SequenceHash* parent,
               BlockHash* blocks, SequenceHash* sequences) const;

  private:
    std::uint64_t seed_;
    alignas(64) std::array<unsigned char, 192> secret_;  // from the seed
};

}  // namespace stator::tokens
