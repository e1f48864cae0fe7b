#include "stator/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "stator/codec/utf8.h"

namespace stator::text {

namespace {
constexpr std::size_t kCompactBytes = 4096;
}  // namespace

Detokenizer::Matcher::Matcher(std::string t) : text(std::move(t)), border(text.size(), 0) {
    for (std::size_t i = 1, k = 0; i < text.size(); ++i) {
        while (k > 0 && text[i] != text[k]) k = border[k - 1];
        if (text[i] == text[k]) ++k;
        border[i] = static_cast<std::uint32_t>(k);
    }
}

bool Detokenizer::Matcher::push(char byte) {
    if (text.empty()) return false;
    while (matched > 0 && text[matched] != byte) matched = border[matched - 1];
    if (text[matched] == byte) ++matched;
    return matched == text.size();
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stop,
                         ControlTokens control, bool begins_text)
    : tokenizer_(tokenizer), control_(control), begins_text_(begins_text) {
    stops_.reserve(stop.size());
    for (std::string& s : stop) stops_.emplace_back(std::move(s));
}

bool Detokenizer::push(TokenId token, std::string& out) {
    if (stop_index_ >= 0) return true;
    std::string_view piece;
    if (begins_text_) [[unlikely]] {
        piece = tokenizer_.first_bytes(token);
        begins_text_ = tokenizer_.is_control(token);
    } else {
        piece = tokenizer_.bytes(token);
    }
    if (piece.empty() && control_ == ControlTokens::kSpelled && tokenizer_.is_control(token) &&
        !tokenizer_.is_end(token)) {
        piece = tokenizer_.spelling(token);
    }
    if (piece.empty()) return false;
    bytes_ += piece;
    const std::size_t whole = codec::utf8_complete_prefix(bytes_);
    if (whole == 0) return false;
    const std::string_view text = std::string_view(bytes_).substr(0, whole);
    if (stops_.empty()) {
        codec::utf8_append_lossy(out, text);
        bytes_.erase(0, whole);
        return false;
    }
    const std::size_t from = pending_.size();
    codec::utf8_append_lossy(pending_, text);
    bytes_.erase(0, whole);
    if (search(from)) {
        release(0, out);
        return true;
    }
    std::size_t held = 0;
    for (const Matcher& m : stops_) held = std::max(held, m.matched);
    release(held, out);
    return false;
}

/// Feeds pending_ from `from` on to the matchers; at a match cuts pending_ right before it.
bool Detokenizer::search(std::size_t from) {
    for (std::size_t i = from; i < pending_.size(); ++i) {
        std::size_t longest = 0;
        for (std::size_t s = 0; s < stops_.size(); ++s) {
            if (stops_[s].push(pending_[i]) && stops_[s].text.size() > longest) {
                longest = stops_[s].text.size();
                stop_index_ = static_cast<int>(s);
            }
        }
        if (longest > 0) {
            pending_.resize(i + 1 - longest);
            return true;
        }
    }
    return false;
}

/// Gives out pending_ but for its last `held` bytes.
void Detokenizer::release(std::size_t held, std::string& out) {
    const std::size_t end = pending_.size() - held;
    out.append(pending_, released_, end - released_);
    released_ = end;
    // Moving what is held only after as much was released keeps the cost per byte constant.
    if (held == 0) {
        pending_.clear();
        released_ = 0;
    } else if (released_ >= std::max(held, kCompactBytes)) {
        pending_.erase(0, released_);
        released_ = 0;
    }
}

void Detokenizer::finish(std::string& out) {
    if (stop_index_ >= 0) return;
    const std::size_t from = pending_.size();
    codec::utf8_append_lossy(pending_, bytes_);
    bytes_.clear();
    search(from);
    release(0, out);
}

}  // namespace stator::text
