#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/tokens/token.h"

namespace stator::text {

using tokens::TokenId;

/// How special tokens written out in a text ("<|im_end|>") are read.
enum class SpecialTokens : std::uint8_t {
    kAsText,  ///< as the characters they are: for text that comes from users
    kParse,   ///< as the token: for text that comes from the model's own chat template
};

/// Text to tokens of one model and the facts about its vocabulary. Implementations live in `model`.
/// Thread-safe and immutable once made.
class Tokenizer {
  public:
    virtual ~Tokenizer() = default;

    /// Appends the tokens of `text` (valid UTF-8) to `out`. `add_bos`: put what the model wants in
    /// front of a text (and only where the model wants it at all).
    [[nodiscard]] virtual Result<void> encode(std::string_view text, SpecialTokens special,
                                              bool add_bos, std::vector<TokenId>& out) const = 0;

    /// encode() of a text that goes on where another ended: nothing is put in front, no BOS and not
    /// the space that some vocabularies (SentencePiece) begin a text with.
    [[nodiscard]] virtual Result<void> encode_more(std::string_view text, SpecialTokens special,
                                                   std::vector<TokenId>& out) const {
        return encode(text, special, false, out);
    }

    /// Memory that every thread keeps which has encoded, in bytes. Where it is much, few threads
    /// should.
    [[nodiscard]] virtual std::size_t bytes_per_thread() const { return 0; }

    [[nodiscard]] virtual std::uint32_t vocab_size() const = 0;

    /// The bytes a token stands for: any bytes, not always whole characters; empty for control
    /// tokens (see is_control). Points into the tokenizer. Ids over the vocabulary give an empty
    /// view.
    [[nodiscard]] virtual std::string_view bytes(TokenId token) const = 0;

    /// bytes() where the token begins a text: vocabularies that write the space between words at
    /// the beginning of a word (SentencePiece) drop that of a text's first one.
    [[nodiscard]] virtual std::string_view first_bytes(TokenId token) const { return bytes(token); }

    /// The token for people and logprobs, control tokens included: its text where that is whole
    /// characters, otherwise the vocabulary's name for it ("<|im_end|>", "<0xE2>").
    [[nodiscard]] virtual std::string_view spelling(TokenId token) const = 0;

    [[nodiscard]] virtual bool is_control(TokenId token) const = 0;
    /// Ends a generation (EOS, EOT, …); there may be several.
    [[nodiscard]] virtual bool is_end(TokenId token) const = 0;

    /// Texts that kParse would read as a special token, longest first; what a user could forge a
    /// role with.
    [[nodiscard]] virtual std::span<const std::string> special_texts() const = 0;
};

}  // namespace stator::text
