#include "stator/text/parsers/gemma_calls.h"

#include "stator/text/parsers/argument_json.h"

namespace stator::text {
namespace {

constexpr std::string_view kCall = "call:";
constexpr std::size_t kMaxDepth = 64;

bool in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-' || c == ':' || static_cast<unsigned char>(c) >= 0x80;
}

std::string quoted(std::string_view text) {
    std::string json = "\"";
    append_json_escaped(json, text);
    json.push_back('"');
    return json;
}

}  // namespace

GemmaCalls::GemmaCalls(const GemmaCallFamily& family)
    : family_(family),
      opens_{family.open},
      opens_or_closes_{family.open, family.close},
      quotes_{family.quote} {}

bool GemmaCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kProse:
            return between(in, out);
        case State::kOpened:
            return opened(in, out);
        case State::kName:
            return name(in, out);
        case State::kFirstKey:
        case State::kKey:
            return key(in, out);
        case State::kFirstItem:
        case State::kItem:
            return item(in, out);
        case State::kString:
            return string(in, out);
        case State::kToken:
            return token(in, out);
        case State::kAfter:
            return after(in, out);
        case State::kClose:
            return close(in, out);
    }
    return false;
}

bool GemmaCalls::refuse(OutputEvents& out) {
    give_back(out);
    return to(State::kProse);
}

bool GemmaCalls::abandon() {
    calls_.abandon();
    begin_gap();
    close_due_ = true;
    return to(State::kProse);
}

bool GemmaCalls::between(Input& in, OutputEvents& out) {
    const auto mark = prose(in, close_due_ ? opens_or_closes_ : opens_, out);
    if (!mark) return false;
    if (*mark > 0) {
        close_due_ = false;
        begin_gap();
        return true;
    }
    name_.clear();
    closers_.clear();
    return to(State::kOpened);
}

bool GemmaCalls::opened(Input& in, OutputEvents& out) {
    const Match m = in.at(kCall);
    if (m == Match::kPart) return false;
    if (m == Match::kNo) return refuse(out);
    hold(in, kCall.size());
    return to(State::kName);
}

bool GemmaCalls::name(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (c == '{' && !name_.empty()) {
        in.take(1);
        begin_gap();
        calls_.begin(out, name_);
        write("{", out);
        closers_.assign(1, '}');
        text_.clear();
        quoted_key_ = false;
        return to(State::kFirstKey);
    }
    if (!in_name(c) || name_.size() == kMaxName) return refuse(out);
    name_.push_back(c);
    hold(in, 1);
    return true;
}

bool GemmaCalls::key(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (text_.empty() && !quoted_key_) {
        if (is_space(c)) {
            in.take(1);
            return true;
        }
        if (c == '}') return end_container(in, out);
    }
    const Match m = in.at(family_.quote);
    if (m == Match::kPart) return false;
    if (m == Match::kYes) {
        in.take(family_.quote.size());
        quoted_key_ = true;
        return true;
    }
    if (c == ':') {
        in.take(1);
        write((state_ == State::kKey ? ", " : "") + quoted(trimmed(text_)) + ": ", out);
        return to(State::kItem);
    }
    if (text_.size() == kMaxName || c == '{' || c == '}' || c == '[' || c == ']' || c == ',') {
        return abandon();
    }
    text_.append(in.take(1));
    return true;
}

bool GemmaCalls::item(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (is_space(c)) {
        in.take(1);
        return true;
    }
    const bool in_list = closers_.back() == ']';
    if (in_list && c == ']') return end_container(in, out);
    const Match m = in.at(family_.quote);
    if (m == Match::kPart) return false;
    if (c == ',' || c == ':' || c == '}' || c == ']') return abandon();
    if (in_list && state_ == State::kItem) write(", ", out);
    if (m == Match::kYes) {
        in.take(family_.quote.size());
        write("\"", out);
        return to(State::kString);
    }
    if (c == '{' || c == '[') {
        if (closers_.size() == kMaxDepth) return abandon();
        write(in.take(1), out);
        closers_.push_back(c == '{' ? '}' : ']');
        text_.clear();
        quoted_key_ = false;
        return to(c == '{' ? State::kFirstKey : State::kFirstItem);
    }
    text_.clear();
    return to(State::kToken);
}

bool GemmaCalls::string(Input& in, OutputEvents& out) {
    const MarkSet::Found found = quotes_.find(in.rest, false);
    if (found.begin > 0) {
        std::string json;
        append_json_escaped(json, in.take(found.begin));
        write(json, out);
    }
    if (found.match != Match::kYes) {
        if (in.last) in.take(in.rest.size());  // half a mark is no part of the string
        return false;
    }
    in.take(family_.quote.size());
    write("\"", out);
    return to(State::kAfter);
}

/// A number or a word; what is neither is a string.
bool GemmaCalls::token(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (c != ',' && c != '}' && c != ']') {
        if (text_.size() == kMaxHeld) return abandon();
        text_.append(in.take(1));
        return true;
    }
    std::string json;
    append_argument_json(json, trimmed(text_), ToolShape::Type::kAny);
    write(json, out);
    return to(State::kAfter);
}

bool GemmaCalls::after(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (is_space(c)) {
        in.take(1);
        return true;
    }
    if (c == ',') {
        in.take(1);
        text_.clear();
        quoted_key_ = false;
        return to(closers_.back() == '}' ? State::kKey : State::kItem);
    }
    return end_container(in, out);
}

bool GemmaCalls::end_container(Input& in, OutputEvents& out) {
    if (closers_.back() != in.front()) return abandon();
    closers_.pop_back();
    write(in.take(1), out);
    if (!closers_.empty()) return to(State::kAfter);
    calls_.end(out);
    begin_gap();
    return to(State::kClose);
}

bool GemmaCalls::close(Input& in, OutputEvents& out) {
    take_gap(in, out);
    if (in.empty()) return false;
    const Match m = in.at(family_.close);
    if (m == Match::kPart) return false;
    if (m == Match::kYes) {
        in.take(family_.close.size());
        begin_gap();
    } else {
        close_due_ = true;
    }
    return to(State::kProse);
}

}  // namespace stator::text
