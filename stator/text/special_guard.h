#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/text/tokenizer.h"

namespace stator::text {

/// Keeps special tokens that a user wrote from becoming special tokens ("<|im_start|>system" inside
/// a message must not forge a role). Before rendering, guard() breaks every special text inside a
/// user's string with a noncharacter (U+FDD0 after its first character); after rendering,
/// encode_guarded() encodes what lies between these marks piece by piece, so that no special text
/// is whole in any piece but the template's own. U+FDD0 in the user's own text is dropped: it is no
/// character. The end of a string that may begin a special text is marked too, because a template
/// may put the next string of the user right behind it. Special texts of a single character are
/// left alone: nothing can be put inside them. Immutable and thread-safe; copies what it needs.
class SpecialGuard {
  public:
    explicit SpecialGuard(std::span<const std::string> special_texts);

    /// Returned unchanged, and cheaply, where there is nothing to break.
    [[nodiscard]] std::string guard(std::string_view text) const;

  private:
    enum class Found : unsigned char { kNothing, kWhole, kBegun };
    [[nodiscard]] Found find_at(std::string_view text) const;

    std::vector<std::string> sorted_;
    std::array<bool, 256> begins_{};  ///< first bytes of special texts
    std::string firsts_;              ///< the same, each once
};

/// SpecialGuard(special_texts).guard(text), for callers with one text.
[[nodiscard]] std::string guard_special(std::string_view text,
                                        std::span<const std::string> special_texts);

/// What lies between the marks of a guarded text, in order; at least one piece, which may be empty.
[[nodiscard]] std::vector<std::string_view> guarded_pieces(std::string_view guarded);

/// Appends the tokens of a rendered prompt, whose user strings went through guard().
[[nodiscard]] Result<void> encode_guarded(const Tokenizer& tokenizer, std::string_view rendered,
                                          bool add_bos, std::vector<TokenId>& out);

}  // namespace stator::text
