#include "stator/gateway/usage_tail.h"

#include <algorithm>
#include <charconv>

namespace stator::gateway {

void UsageTail::take(std::string_view piece) {
    if (piece.size() >= kKept) {
        tail_.assign(piece.substr(piece.size() - kKept));
        return;
    }
    tail_ += piece;
    if (tail_.size() > 2 * kKept) tail_.erase(0, tail_.size() - kKept);
}

std::optional<std::uint32_t> UsageTail::cached_tokens() const {
    constexpr std::string_view kKey = R"("cached_tokens":)";
    std::size_t at = tail_.rfind(kKey);
    if (at == std::string::npos) return std::nullopt;
    at += kKey.size();
    while (at < tail_.size() && tail_[at] == ' ') ++at;
    std::uint32_t n = 0;
    const auto [end, failed] = std::from_chars(tail_.data() + at, tail_.data() + tail_.size(), n);
    if (failed != std::errc{}) return std::nullopt;
    return n;
}

}  // namespace stator::gateway
