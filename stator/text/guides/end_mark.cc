#include "stator/text/guides/end_mark.h"

#include <algorithm>

#include "stator/base/check.h"

namespace stator::text {

EndMark::EndMark(std::string mark, const Vocabulary& vocabulary) : mark_(std::move(mark)) {
    STATOR_CHECK(!mark_.empty(), "an end mark is a text");
    border_.resize(mark_.size());
    std::uint32_t k = 0;
    for (std::size_t i = 1; i < mark_.size(); ++i) {
        while (k > 0 && mark_[i] != mark_[k]) k = border_[k - 1];
        if (mark_[i] == mark_[k]) ++k;
        border_[i] = k;
    }
    for (TokenId token = 0; token < vocabulary.size(); ++token) {
        if (may_overhang(vocabulary.bytes(token))) overhanging_.push_back(token);
    }
}

std::optional<std::string_view> EndMark::take(std::string_view bytes, std::size_t& matched) const {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        while (matched > 0 && bytes[i] != mark_[matched]) matched = border_[matched - 1];
        if (bytes[i] == mark_[matched]) ++matched;
        if (matched == mark_.size()) return bytes.substr(i + 1);
    }
    return std::nullopt;
}

/// Whether some of the mark's end, or all of it, lies in the token with more behind it.
bool EndMark::may_overhang(std::string_view bytes) const {
    if (bytes.size() < 2) return false;
    for (std::size_t end = 1; end < bytes.size(); ++end) {
        const std::size_t n = std::min(end, mark_.size());
        if (end > mark_.size() || n == end) {
            if (bytes.substr(end - n, n) == std::string_view(mark_).substr(mark_.size() - n)) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace stator::text
