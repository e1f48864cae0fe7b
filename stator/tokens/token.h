#pragma once

#include <cstdint>

#include "stator/base/strong.h"

namespace stator::tokens {

/// A token's id in its model's vocabulary. Plain integer on purpose: prompts are arrays of them,
/// handed to libraries and hashed as bytes.
using TokenId = std::uint32_t;

/// Ids from here on are no model's: they stand in a prompt where embeddings of media go in
/// (media_token() of hash.h).
inline constexpr TokenId kFirstMediaToken = TokenId{1} << 31;

/// Hash of the tokens of one block, wherever it stands.
using BlockHash = Strong<std::uint64_t, struct BlockHashTag>;
/// Hash of a block and of all before it: names a prefix.
using SequenceHash = Strong<std::uint64_t, struct SequenceHashTag>;

}  // namespace stator::tokens
