#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/guides/vocabulary.h"

namespace stator::text {

/// A text that ends the free part of an output ("</think>"), looked for in a stream of tokens,
/// wherever it is cut. The search is Knuth, Morris and Pratt's. Immutable.
class EndMark {
  public:
    /// `mark` is not empty.
    EndMark(std::string mark, const Vocabulary& vocabulary);

    /// Takes `bytes` in where `matched` bytes of the mark stand already, and moves `matched` on.
    /// What lies behind the mark, where it is complete: `matched` is then the mark's size.
    [[nodiscard]] std::optional<std::string_view> take(std::string_view bytes,
                                                       std::size_t& matched) const;

    /// Tokens that may carry text beyond the mark, by id.
    [[nodiscard]] const std::vector<TokenId>& overhanging() const { return overhanging_; }

  private:
    [[nodiscard]] bool may_overhang(std::string_view bytes) const;

    std::string mark_;
    std::vector<std::uint32_t> border_;  ///< longest proper border of each prefix
    std::vector<TokenId> overhanging_;
};

}  // namespace stator::text
