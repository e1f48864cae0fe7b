#pragma once

#include <array>
#include <string>
#include <vector>

#include "stator/text/tokenizer.h"

namespace stator::text {

/// A tokenizer that needs no model: tokens 0 to 255 are the bytes themselves, 256 ends a
/// generation, 257 and up are the special tokens given to the constructor. What goes in comes out,
/// so everything above the tokenizer interface can be tested and measured without a vocabulary. It
/// has no BOS: `add_bos` adds nothing.
class ByteTokenizer final : public Tokenizer {
  public:
    static constexpr TokenId kEnd = 256;
    static constexpr std::string_view kEndSpelling = "<|end|>";

    /// `specials[i]` becomes token 257 + i, a control token. Empty texts and texts given twice are
    /// not allowed.
    explicit ByteTokenizer(std::vector<std::string> specials = {});

    [[nodiscard]] Result<void> encode(std::string_view text, SpecialTokens special, bool add_bos,
                                      std::vector<TokenId>& out) const override;
    [[nodiscard]] std::uint32_t vocab_size() const override;
    [[nodiscard]] std::string_view bytes(TokenId token) const override;
    /// Printable ASCII as itself, other bytes as "<0x0A>".
    [[nodiscard]] std::string_view spelling(TokenId token) const override;
    [[nodiscard]] bool is_control(TokenId token) const override;
    [[nodiscard]] bool is_end(TokenId token) const override { return token == kEnd; }
    [[nodiscard]] std::span<const std::string> special_texts() const override { return texts_; }

  private:
    std::array<char, 256> bytes_;
    std::array<bool, 256> begins_special_{};
    std::vector<std::string> spellings_;
    std::vector<std::string> texts_;  ///< special texts, longest first
    std::vector<TokenId> text_ids_;   ///< the token of each of texts_
};

}  // namespace stator::text
