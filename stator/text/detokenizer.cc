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
    for (std::string& s : stop) {
        if (s.empty()) {
            stops_.emplace_back(std::string{});  // keeps the numbers of the others
            continue;
        }
        begins_stop_[static_cast<unsigned char>(s[0])] = true;
        stops_.emplace_back(std::move(s));
    }
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
    if (bytes_.empty() && codec::utf8_valid(piece)) [[likely]]
        return feed(piece, out);
    bytes_ += piece;
    const std::size_t whole = codec::utf8_complete_prefix(bytes_);
    if (whole == 0) return false;
    whole_.clear();
    codec::utf8_append_lossy(whole_, std::string_view(bytes_).substr(0, whole));
    bytes_.erase(0, whole);
    return feed(whole_, out);
}

/// Whole characters: gives out what can't belong to a stop string.
bool Detokenizer::feed(std::string_view text, std::string& out) {
    if (held_ == 0) {
        const std::size_t plain = before_stop(text);
        out.append(text, 0, plain);
        if (plain == text.size()) return false;
        text.remove_prefix(plain);
    }
    const std::size_t from = pending_.size();
    pending_ += text;
    const bool stopped = search(from);
    release(out);
    return stopped;
}

/// How many bytes of `text` come before the first that may begin a stop string.
std::size_t Detokenizer::before_stop(std::string_view text) const {
    if (stops_.empty()) return text.size();
    std::size_t i = 0;
    while (i < text.size() && !begins_stop_[static_cast<unsigned char>(text[i])]) ++i;
    return i;
}

/// Feeds pending_ from `from` on to the matchers; at a match cuts pending_ right before it.
bool Detokenizer::search(std::size_t from) {
    for (std::size_t i = from; i < pending_.size(); ++i) {
        if (held_ == 0) {
            i += before_stop(std::string_view(pending_).substr(i));
            if (i == pending_.size()) break;
        }
        if (step(i)) return true;
    }
    return false;
}

/// One byte for every matcher.
bool Detokenizer::step(std::size_t at) {
    std::size_t longest = 0;
    held_ = 0;
    for (std::size_t s = 0; s < stops_.size(); ++s) {
        Matcher& m = stops_[s];
        if (m.push(pending_[at]) && m.text.size() > longest) {
            longest = m.text.size();
            stop_index_ = static_cast<int>(s);
        }
        held_ = std::max(held_, m.matched);
    }
    if (longest == 0) return false;
    pending_.resize(at + 1 - longest);
    held_ = 0;
    return true;
}

/// Gives out pending_ but for what is held.
void Detokenizer::release(std::string& out) {
    const std::size_t end = pending_.size() - held_;
    out.append(pending_, released_, end - released_);
    released_ = end;
    // Moving what is held only after as much was released keeps the cost per byte constant.
    if (held_ == 0) {
        pending_.clear();
        released_ = 0;
    } else if (released_ >= std::max(held_, kCompactBytes)) {
        pending_.erase(0, released_);
        released_ = 0;
    }
}

void Detokenizer::finish(std::string& out) {
    if (stop_index_ >= 0) return;
    whole_.clear();
    codec::utf8_append_lossy(whole_, bytes_);
    bytes_.clear();
    if (feed(whole_, out)) return;
    held_ = 0;
    release(out);
}

}  // namespace stator::text
