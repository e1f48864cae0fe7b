#include "stator/text/parsers/json_calls.h"

namespace stator::text {

JsonCalls::JsonCalls(const JsonCallFamily& family)
    : bare_object_(family.bare_object),
      bare_array_(family.bare_array),
      needs_arguments_(family.needs_arguments),
      separators_(family.separators) {
    for (const std::string_view mark : family.opens) {
        opens_.add(mark);
        opens_or_closes_.add(mark);
    }
    for (const std::string_view mark : family.closes) {
        closes_.add(mark);
        opens_or_closes_.add(mark);
    }
}

bool JsonCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kProse:
            return between(in, out);
        case State::kOpened:
            return opened(in, out);
        case State::kCall:
            return call(in, out);
        case State::kClose:
            return close(in, out);
    }
    return false;
}

bool JsonCalls::between(Input& in, OutputEvents& out) {
    if (at_beginning() && (bare_object_ || bare_array_)) {
        take_gap(in, out);
        if (in.empty()) return false;
        if (at_beginning() && bare(in.front())) {
            hold_gap();
            bare_call_ = true;
            list_.begin(true);
            state_ = State::kCall;
            return true;
        }
    }
    // A closing mark that comes late, behind something else, is no content.
    const MarkSet& marks = close_due_ ? opens_or_closes_ : opens_;
    const auto mark = prose(in, marks, out);
    if (!mark) return false;
    if (*mark >= opens_.size()) {
        close_due_ = false;
        begin_gap();
        return true;
    }
    bare_call_ = bare_object_;
    state_ = State::kOpened;
    return true;
}

bool JsonCalls::opened(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (is_space(c) && !held_full()) {
        hold(in, 1);
        return true;
    }
    if (c == '{' || c == '[') {
        list_.begin(needs_arguments_);
        state_ = State::kCall;
        return true;
    }
    refuse(out);
    return true;
}

bool JsonCalls::call(Input& in, OutputEvents& out) {
    switch (list_.read(in, calls_, held_, out)) {
        case JsonCallList::Result::kMore:
            return false;
        case JsonCallList::Result::kDone:
            begin_gap();
            state_ = State::kClose;
            return true;
        case JsonCallList::Result::kNoCall:
            refuse(out);
            return true;
        case JsonCallList::Result::kBroken:
            calls_.abandon();
            begin_gap();
            close_due_ = true;
            state_ = State::kProse;
            return true;
    }
    return false;
}

/// Behind a call: what ends it, or another bare one.
bool JsonCalls::close(Input& in, OutputEvents& out) {
    const bool separated = !held_.empty();
    if (separated && is_space(in.front()) && !held_full()) {
        hold(in, 1);
        return true;
    }
    take_gap(in, out);
    if (in.empty()) return false;
    if (separated && !bare(in.front())) {
        refuse(out);
        return true;
    }
    if (bare_call_ && !separators_.empty() && bare(in.front())) {
        hold_gap();
        list_.begin(true);
        state_ = State::kCall;
        return true;
    }
    if (bare_call_ && !separated && gap() && separators_.contains(in.front())) {
        hold_gap();
        hold(in, 1);
        return true;
    }
    const MarkSet::Found found = closes_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kYes) {
        in.take(closes_[found.mark].size());
        begin_gap();
    } else {
        close_due_ = true;
    }
    state_ = State::kProse;
    return true;
}

void JsonCalls::refuse(OutputEvents& out) {
    give_back(out);
    state_ = State::kProse;
}

}  // namespace stator::text
