#include "stator/text/special_guard.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace stator::text {

namespace {

constexpr std::string_view kMark = "\xEF\xB7\x90";  // U+FDD0

/// Unicode's white space beyond ASCII's: what trimming in a template may take away.
constexpr std::string_view kWideSpaces[] = {"\u0085", "\u00A0", "\u1680", "\u2000", "\u2001",
                                            "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
                                            "\u2007", "\u2008", "\u2009", "\u200A", "\u2028",
                                            "\u2029", "\u202F", "\u205F", "\u3000"};

/// `text` without white space at its end.
std::string_view trim_end(std::string_view text) {
    constexpr std::string_view kAsciiSpaces = " \t\n\v\f\r\x1C\x1D\x1E\x1F";
    for (;;) {
        const std::size_t last = text.find_last_not_of(kAsciiSpaces);
        text = text.substr(0, last == std::string_view::npos ? 0 : last + 1);
        const auto ends_text = [text](std::string_view space) { return text.ends_with(space); };
        const auto* space = std::ranges::find_if(kWideSpaces, ends_text);
        if (space == std::end(kWideSpaces)) return text;
        text.remove_suffix(space->size());
    }
}

std::string without_marks(std::string_view text) {
    std::string out;
    for (std::size_t at = 0;;) {
        const std::size_t mark = text.find(kMark, at);
        out += text.substr(at, mark - at);
        if (mark == std::string_view::npos) return out;
        at = mark + kMark.size();
    }
}

std::size_t character_length(char lead) {
    const auto c = static_cast<unsigned char>(lead);
    if (c < 0xC0) return 1;
    if (c < 0xE0) return 2;
    return c < 0xF0 ? 3 : 4;
}

/// The places of a text where a special text may begin, in order. Most vocabularies begin theirs
/// with one or two characters, of which users write few: memory is searched at memchr()'s speed.
class Candidates {
  public:
    Candidates(std::string_view text, std::string_view firsts, const std::array<bool, 256>& begins)
        : text_(text), firsts_(firsts), begins_(begins) {
        for (std::size_t k = 0; few() && k < firsts_.size(); ++k) next_[k] = find(k, 0);
    }

    /// text.size() where there is none left.
    std::size_t next() {
        if (!few()) {
            while (at_ < text_.size() && !begins_[static_cast<unsigned char>(text_[at_])]) ++at_;
            return at_ < text_.size() ? at_++ : at_;
        }
        std::size_t best = 0;
        for (std::size_t k = 1; k < firsts_.size(); ++k) {
            if (next_[k] < next_[best]) best = k;
        }
        const std::size_t found = firsts_.empty() ? text_.size() : next_[best];
        if (found < text_.size()) next_[best] = find(best, found + 1);
        return found;
    }

  private:
    static constexpr std::size_t kFew = 3;
    [[nodiscard]] bool few() const { return firsts_.size() <= kFew; }
    [[nodiscard]] std::size_t find(std::size_t k, std::size_t from) const {
        const void* found = std::memchr(text_.data() + from, firsts_[k], text_.size() - from);
        return found == nullptr
                   ? text_.size()
                   : static_cast<std::size_t>(static_cast<const char*>(found) - text_.data());
    }

    std::string_view text_;
    std::string_view firsts_;
    const std::array<bool, 256>& begins_;
    std::array<std::size_t, kFew> next_{};
    std::size_t at_ = 0;
};

}  // namespace

SpecialGuard::SpecialGuard(std::span<const std::string> special_texts) {
    for (const std::string& text : special_texts) {
        if (text.empty() || text.size() <= character_length(text[0])) continue;
        if (!std::exchange(begins_[static_cast<unsigned char>(text[0])], true)) firsts_ += text[0];
        sorted_.push_back(text);
    }
    std::ranges::sort(sorted_);
}

/// Whether a special text begins at text[0], or all of `text` is the beginning of one. Narrows the
/// sorted texts byte by byte: O(log n) per byte, and no more bytes than the longest special text
/// has.
SpecialGuard::Found SpecialGuard::find_at(std::string_view text) const {
    auto first = sorted_.begin();
    auto last = sorted_.end();
    for (std::size_t i = 0; first != last; ++i) {
        if (first->size() == i) return Found::kWhole;  // the shortest of a range comes first
        if (i == text.size()) return Found::kBegun;
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto key = [i](const std::string& s) {
            return i < s.size() ? static_cast<int>(static_cast<unsigned char>(s[i])) : -1;
        };
        const auto range = std::ranges::equal_range(first, last, static_cast<int>(byte), {}, key);
        first = range.begin();
        last = range.end();
    }
    return Found::kNothing;
}

std::string SpecialGuard::guard(std::string_view text) const {
    if (text.find(kMark) != std::string_view::npos) return guard(without_marks(text));
    const std::string_view trimmed = trim_end(text);
    std::string out;
    std::size_t copied = 0;
    const auto mark_at = [&](std::size_t end) {
        if (end <= copied) return;
        if (out.empty()) out.reserve(text.size() + 8 * kMark.size());
        out.append(text, copied, end - copied);
        out += kMark;
        copied = end;
    };
    bool begun = false;
    Candidates candidates(text, firsts_, begins_);
    for (std::size_t i = candidates.next(); i < text.size(); i = candidates.next()) {
        if (find_at(text.substr(i)) == Found::kWhole) {
            mark_at(i + character_length(text[i]));
        } else if (i < trimmed.size() && find_at(trimmed.substr(i)) == Found::kBegun) {
            begun = true;
        }
    }
    if (begun) mark_at(trimmed.size());
    out.append(text, copied);
    return out;
}

std::string guard_special(std::string_view text, std::span<const std::string> special_texts) {
    const auto may_begin = [text](const std::string& special) {
        return !special.empty() && text.find(special[0]) != std::string_view::npos;
    };
    if (!std::ranges::any_of(special_texts, may_begin) &&
        text.find(kMark) == std::string_view::npos) {
        return std::string(text);
    }
    return SpecialGuard(special_texts).guard(text);
}

std::vector<std::string_view> guarded_pieces(std::string_view guarded) {
    std::vector<std::string_view> pieces;
    for (std::size_t at = 0;;) {
        const std::size_t mark = guarded.find(kMark, at);
        const std::string_view piece = guarded.substr(at, mark - at);
        const bool last = mark == std::string_view::npos;
        if (!piece.empty() || (last && pieces.empty())) pieces.push_back(piece);
        if (last) return pieces;
        at = mark + kMark.size();
    }
}

Result<void> encode_guarded(const Tokenizer& tokenizer, std::string_view rendered, bool add_bos,
                            std::vector<TokenId>& out) {
    bool first = true;
    for (const std::string_view piece : guarded_pieces(rendered)) {
        auto done = first ? tokenizer.encode(piece, SpecialTokens::kParse, add_bos, out)
                          : tokenizer.encode_more(piece, SpecialTokens::kParse, out);
        if (!done) return done;
        first = false;
    }
    return {};
}

}  // namespace stator::text
