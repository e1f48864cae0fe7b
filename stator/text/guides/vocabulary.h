#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/tokenizer.h"

namespace stator::text {

/// The bytes of all tokens, one behind the other, and what each is for. A copy, so that guides need
/// not keep a tokenizer alive. Immutable.
class Vocabulary {
  public:
    enum class Kind : std::uint8_t { kText = 0, kSpecial, kEnd, kUnused };

    explicit Vocabulary(const Tokenizer& tokenizer);

    [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(kinds_.size()); }
    /// A special token's bytes are its name.
    [[nodiscard]] std::string_view bytes(TokenId token) const;
    [[nodiscard]] bool is_end(TokenId token) const {
        return token < size() && kinds_[token] == static_cast<std::uint8_t>(Kind::kEnd);
    }
    [[nodiscard]] const std::vector<TokenId>& end_tokens() const { return ends_; }

    [[nodiscard]] const std::string& all_bytes() const { return bytes_; }
    [[nodiscard]] std::span<const std::uint64_t> offsets() const { return offsets_; }
    [[nodiscard]] std::span<const std::uint8_t> kinds() const { return kinds_; }

  private:
    std::string bytes_;
    std::vector<std::uint64_t> offsets_;  ///< where each token ends
    std::vector<std::uint8_t> kinds_;
    std::vector<TokenId> ends_;
};

}  // namespace stator::text
