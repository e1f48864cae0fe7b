#include "stator/tokens/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
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

SequenceHash sequence_hash(BlockHash first) { return SequenceHash(first.value); }

SequenceHash sequence_hash(SequenceHash parent, BlockHash block) {
    const std::uint64_t both[] = {parent.value, block.value};
    return SequenceHash(XXH3_64bits_withSeed(both, sizeof(both), kSeed));
}

}  // namespace stator::tokens
