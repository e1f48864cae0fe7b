#pragma once

#include <cstdint>
#include <vector>

#include "stator/tokens/token.h"

namespace stator::engine::mock {

using tokens::SequenceHash;
using tokens::TokenId;

/// What the KV of a prefix says: a number made of its last whole block's content and the tokens
/// after it.
struct PrefixState {
    std::uint64_t value = 0;

    [[nodiscard]] static PrefixState after(SequenceHash last_block) { return {last_block.value}; }
    void push(TokenId token);
    bool operator==(const PrefixState&) const = default;
};

/// Output tokens: a pure function of (prefix, position, seed).
class TokenSource {
  public:
    struct Options {
        std::vector<TokenId> alphabet;  ///< empty = all below vocab_size
        std::uint32_t vocab_size = 0;
        TokenId eos = 0;
        std::uint32_t mean_output_tokens = 0;  ///< 0 = eos never comes
    };
    explicit TokenSource(Options options);

    /// The token after `prefix`, which has `position` tokens. `may_end`: eos may come.
    [[nodiscard]] TokenId next(PrefixState prefix, std::uint32_t position, std::uint64_t seed,
                               bool may_end) const;
    [[nodiscard]] TokenId eos() const { return options_.eos; }

  private:
    Options options_;
};

}  // namespace stator::engine::mock
