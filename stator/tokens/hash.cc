#include "stator/tokens/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>

#include "stator/base/check.h"

namespace stator::tokens {
namespace {

constexpr std::uint64_t kSeed = 1337;

// Tokens and hashes are hashed as they lie in memory.
static_assert(std::endian::native == std::endian::little);

std::uint64_t text_hash(std::string_view text, std::uint64_t seed) {
    return text.empty() ? 0 : XXH3_64bits_withSeed(text.data(), text.size(), seed);
}

/// Longer inputs are hashed with a secret of the seed's own.
constexpr std::size_t kShort = 240;

SequenceHash after(SequenceHash parent, BlockHash block) {
    const std::uint64_t both[] = {parent.value, block.value};
    return SequenceHash(XXH3_64bits_withSeed(both, sizeof(both), kSeed));
}

/// The blocks' hashes don't wait for each other, each sequence hash waits for the one before: side
/// by side, the chain hides behind the blocks or the blocks behind the chain. With `hash` in line
/// and of constant length.
template <typename Hash>
void chain_of(std::span<const TokenId> tokens, std::size_t block_size, const SequenceHash* parent,
              BlockHash* blocks, SequenceHash* sequences, Hash hash) {
    const TokenId* at = tokens.data();
    const TokenId* const end = at + tokens.size();
    if (parent == nullptr && at != end) {
        *blocks = BlockHash(hash(at));
        *sequences = SequenceHash(blocks->value);
        parent = sequences;
        at += block_size;
        ++blocks;
        ++sequences;
    }
    SequenceHash last = at != end ? *parent : SequenceHash();
    for (; at != end; at += block_size) {
        *blocks = BlockHash(hash(at));
        last = after(last, *blocks++);
        *sequences++ = last;
    }
}

}  // namespace

std::uint64_t hash_seed(std::string_view lora, std::string_view name_space) {
    return kSeed + text_hash(lora, 0) + text_hash(name_space, 1);
}

BlockHash block_hash(std::span<const TokenId> tokens, std::uint64_t seed,
                     std::span<const std::uint64_t> sorted_media) {
    if (sorted_media.empty()) {
        return BlockHash(XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), seed));
    }
    STATOR_ASSERT(std::ranges::is_sorted(sorted_media));
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed);
    XXH3_64bits_update(&state, tokens.data(), tokens.size_bytes());
    XXH3_64bits_update(&state, sorted_media.data(), sorted_media.size_bytes());
    return BlockHash(XXH3_64bits_digest(&state));
}

TokenId media_token(std::span<const std::uint8_t> digest, std::uint32_t row) {
    std::array<std::uint8_t, 36> bytes{};
    STATOR_ASSERT(digest.size() == 32);
    std::copy_n(digest.begin(), std::min<std::size_t>(digest.size(), 32), bytes.begin());
    for (std::size_t i = 0; i < 4; ++i) bytes[32 + i] = static_cast<std::uint8_t>(row >> (8 * i));
    return kFirstMediaToken |
           static_cast<TokenId>(XXH3_64bits(bytes.data(), bytes.size()) & 0x7fffffffU);
}

SequenceHash sequence_hash(BlockHash first) { return SequenceHash(first.value); }

SequenceHash sequence_hash(SequenceHash parent, BlockHash block) { return after(parent, block); }

BlockHasher::BlockHasher(std::uint64_t seed) : seed_(seed) {
    static_assert(sizeof(secret_) == XXH_SECRET_DEFAULT_SIZE);
    XXH3_generateSecret_fromSeed(secret_.data(), seed);
}

BlockHash BlockHasher::block(std::span<const TokenId> tokens) const {
    return BlockHash(XXH3_64bits_withSecretandSeed(tokens.data(), tokens.size_bytes(),
                                                   secret_.data(), secret_.size(), seed_));
}

void BlockHasher::chain(std::span<const TokenId> tokens, std::size_t block_size,
                        const SequenceHash* parent, BlockHash* blocks,
                        SequenceHash* sequences) const {
    STATOR_ASSERT(tokens.size() % block_size == 0);
    const std::uint64_t seed = seed_;
    const std::size_t bytes = block_size * sizeof(TokenId);
    const auto constant = [&]<std::size_t N>() {
        static_assert(N * sizeof(TokenId) <= kShort);
        chain_of(tokens, N, parent, blocks, sequences, [seed](const TokenId* at) {
            return XXH3_64bits_withSeed(at, N * sizeof(TokenId), seed);
        });
    };
    if (block_size == 16) {
        constant.template operator()<16>();
    } else if (block_size == 32) {
        constant.template operator()<32>();
    } else if (bytes <= kShort) {
        chain_of(tokens, block_size, parent, blocks, sequences,
                 [&](const TokenId* at) { return XXH3_64bits_withSeed(at, bytes, seed); });
    } else {
        chain_of(tokens, block_size, parent, blocks, sequences, [&](const TokenId* at) {
            return XXH3_64bits_withSecretandSeed(at, bytes, secret_.data(), secret_.size(), seed);
        });
    }
}

}  // namespace stator::tokens
