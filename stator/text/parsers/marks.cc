#include "stator/text/parsers/marks.h"

#include <cstring>

namespace stator::text {

std::size_t leading_space(std::string_view text) {
    std::size_t n = 0;
    while (n < text.size() && is_space(text[n])) ++n;
    return n;
}

std::string_view trimmed(std::string_view text) {
    text.remove_prefix(leading_space(text));
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

MarkSet::MarkSet(std::initializer_list<std::string_view> marks) {
    for (const std::string_view mark : marks) add(mark);
}

void MarkSet::add(std::string_view mark) {
    if (mark.empty()) return;
    const auto first = static_cast<unsigned char>(mark.front());
    only_first_ = marks_.empty() || only_first_ == first ? first : -1;
    marks_.push_back(mark);
    first_[first] = true;
}

std::size_t MarkSet::candidate(std::string_view text, std::size_t from) const {
    if (marks_.empty() || from >= text.size()) return text.size();
    if (only_first_ >= 0) {
        const void* p = std::memchr(text.data() + from, only_first_, text.size() - from);
        return p == nullptr ? text.size()
                            : static_cast<std::size_t>(static_cast<const char*>(p) - text.data());
    }
    while (from < text.size() && !first_[static_cast<unsigned char>(text[from])]) ++from;
    return from;
}

MarkSet::Found MarkSet::at(std::string_view text, bool last) const {
    Found found;
    for (std::size_t i = 0; i < marks_.size(); ++i) {
        switch (Input::match(text, marks_[i], last)) {
            case Match::kNo:
                break;
            case Match::kPart:
                return {0, i, Match::kPart};
            case Match::kYes:
                if (found.match == Match::kNo || marks_[i].size() > marks_[found.mark].size()) {
                    found = {0, i, Match::kYes};
                }
                break;
        }
    }
    return found;
}

MarkSet::Found MarkSet::find(std::string_view text, bool last) const {
    for (std::size_t i = candidate(text, 0); i < text.size(); i = candidate(text, i + 1)) {
        Found found = at(text.substr(i), last);
        if (found.match == Match::kNo) continue;
        found.begin = i;
        return found;
    }
    return {text.size(), 0, Match::kNo};
}

}  // namespace stator::text
