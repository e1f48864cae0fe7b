#include "stator/text/parsers/python_calls.h"

namespace stator::text {
namespace {

bool in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-' || static_cast<unsigned char>(c) >= 0x80;
}

}  // namespace

PythonCalls::PythonCalls(const PythonCallFamily& family)
    : bare_(family.bare), lines_(family.lines) {
    for (const std::string_view mark : family.opens) {
        opens_.add(mark);
        opens_or_closes_.add(mark);
    }
    for (const std::string_view mark : family.closes) {
        closes_.add(mark);
        opens_or_closes_.add(mark);
    }
}

bool PythonCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kProse:
            return between(in, out);
        case State::kOpened:
        case State::kElement:
        case State::kName:
            return element(in, out);
        case State::kArgument:
        case State::kKey:
        case State::kEquals:
            return argument(in, out);
        case State::kValue:
            return value(in, out);
        case State::kAfterValue:
        case State::kAfterCall:
            return after_value(in, out);
        case State::kClose:
            return close(in, out);
    }
    return false;
}

/// Takes a byte, which is content if no call has begun.
bool PythonCalls::keep(Input& in) {
    if (written_) {
        in.take(1);
    } else {
        hold(in, 1);
    }
    return true;
}

/// This is no call, or no longer one.
bool PythonCalls::stop(OutputEvents& out) {
    if (written_) {
        calls_.abandon();
        begin_gap();
    } else {
        give_back(out);
    }
    close_due_ = marked_ && calls_.any();
    return to(State::kProse);
}

bool PythonCalls::between(Input& in, OutputEvents& out) {
    if (bare_ && at_beginning()) {
        take_gap(in, out);
        if (in.empty()) return false;
        if (at_beginning() && in.front() == '[') {
            hold_gap();
            marked_ = false;
            again_ = false;
            written_ = false;
            return to(State::kOpened);
        }
    }
    const auto mark = prose(in, close_due_ ? opens_or_closes_ : opens_, out);
    if (!mark) return false;
    if (*mark >= opens_.size()) {
        begin_gap();
        return true;
    }
    marked_ = true;
    again_ = false;
    written_ = false;
    return to(State::kOpened);
}

bool PythonCalls::element(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (held_full()) return stop(out);
    if (state_ == State::kOpened) {
        if (is_space(c)) return keep(in);
        list_ = c == '[';
        if (!list_ && !lines_) return stop(out);
        state_ = State::kElement;
        name_.clear();
        if (list_) return keep(in);
    }
    if (state_ == State::kElement) {
        written_ = false;
        if (is_space(c)) return keep(in);
        if (!in_name(c) || (c >= '0' && c <= '9')) return stop(out);
        printed_ = false;
        name_.clear();
        state_ = State::kName;
    }
    if (c == '(') {
        more_ = false;
        key_.clear();
        state_ = State::kArgument;
        return keep(in);
    }
    if (!in_name(c) || name_.size() == kMaxName) return stop(out);
    name_.push_back(c);
    return keep(in);
}

bool PythonCalls::argument(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (!written_ && held_full()) return stop(out);
    if (state_ == State::kArgument) {
        if (is_space(c)) return keep(in);
        if (c == ')') {
            keep(in);
            return end_call(out);
        }
        key_.clear();
        state_ = State::kKey;
    }
    if (state_ == State::kKey) {
        if (in_name(c)) {
            if (key_.size() == kMaxName) return stop(out);
            key_.push_back(c);
            return keep(in);
        }
        if (c == '(' && lines_ && name_ == "print" && !printed_ && !written_ && !key_.empty()) {
            printed_ = true;
            name_ = key_;
            state_ = State::kArgument;
            return keep(in);
        }
        state_ = State::kEquals;
    }
    if (is_space(c)) return keep(in);
    if (c != '=' || key_.empty()) return stop(out);
    if (!written_) {
        hold(in, 1);
        begin_gap();
        calls_.begin(out, name_);
        written_ = true;
    } else {
        in.take(1);
    }
    json_.assign(more_ ? ", \"" : "{\"");
    append_json_escaped(json_, key_);
    json_.append("\": ");
    more_ = true;
    value_ = PythonValue();
    return to(State::kValue);
}

bool PythonCalls::value(Input& in, OutputEvents& out) {
    // The key goes out with the value's first byte.
    const std::size_t before = json_.size();
    const std::size_t n = value_.feed(in.rest, json_);
    in.take(n);
    if (json_.size() > before || value_.done()) {
        calls_.arguments(out, json_);
        json_.clear();
    }
    if (value_.bad()) return stop(out);
    if (value_.open()) return false;
    return to(State::kAfterValue);
}

bool PythonCalls::end_call(OutputEvents& out) {
    if (!written_) calls_.begin(out, name_);
    calls_.arguments(out, more_ ? "}" : "{}");
    calls_.end(out);
    begin_gap();
    written_ = false;
    again_ = true;
    return to(State::kAfterCall);
}

bool PythonCalls::after_value(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (state_ == State::kAfterValue) {
        if (is_space(c)) return keep(in);
        if (c == ',') {
            in.take(1);
            return to(State::kArgument);
        }
        if (c != ')') return stop(out);
        in.take(1);
        return end_call(out);
    }
    take_gap(in, out);
    if (in.empty()) return false;
    const char next = in.front();
    if (printed_ && next == ')') {
        printed_ = false;
        in.take(1);
        return true;
    }
    if (list_ && next == ',') {
        hold_gap();
        hold(in, 1);
        return to(State::kElement);
    }
    if (list_ && next == ']') {
        in.take(1);
        begin_gap();
        return to(State::kClose);
    }
    if (!list_ && (next == ',' || next == ';')) {
        in.take(1);
        return true;
    }
    if (!list_ && in_name(next) && gap()) {
        hold_gap();
        return to(State::kElement);
    }
    return to(State::kClose);
}

bool PythonCalls::close(Input& in, OutputEvents& out) {
    take_gap(in, out);
    if (in.empty()) return false;
    if (marked_) {
        const MarkSet::Found found = closes_.at(in.rest, in.last);
        if (found.match == Match::kPart) return false;
        if (found.match == Match::kYes) {
            in.take(closes_[found.mark].size());
            begin_gap();
        } else {
            close_due_ = true;
        }
    }
    return to(State::kProse);
}

}  // namespace stator::text
