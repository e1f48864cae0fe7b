#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stator::gateway {

/// The end of an answer, for what it says of cached tokens
/// (usage.prompt_tokens_details.cached_tokens): at most kKept bytes are kept.
class UsageTail {
  public:
    static constexpr std::size_t kKept = 2048;
    void take(std::string_view piece);
    /// The last number that stands behind "cached_tokens" there; none: not said.
    [[nodiscard]] std::optional<std::uint32_t> cached_tokens() const;

  private:
    std::string tail_;
};

}  // namespace stator::gateway
