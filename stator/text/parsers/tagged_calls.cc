#include "stator/text/parsers/tagged_calls.h"

#include <utility>

namespace stator::text {

TaggedCalls::TaggedCalls(const TaggedCallFamily& family, std::vector<ToolShape> tools)
    : SectionedCalls({.section_open = family.section_open,
                      .section_close = family.section_close,
                      .call_open = family.call_open,
                      .call_close = family.call_close,
                      .calls_without_section = family.calls_without_section}),
      family_(family),
      tools_(std::move(tools)) {
    in_call_.add(family.parameter_open);
    in_call_.add(family.call_close);
    in_call_.add(family.section_close);
    for (const std::string_view mark : family.name_ends) name_ends_.add(mark);
    for (const std::string_view mark : family.name_stops) name_ends_.add(mark);
    for (const std::string_view mark : family.key_ends) key_ends_.add(mark);
    for (const std::string_view mark : family.value_closes) value_closes_.add(mark);
    for (const std::string_view mark : family.value_stops) value_closes_.add(mark);
}

bool TaggedCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kProse:
            return between(in, out);
        case State::kSection:
            return section(in, out);
        case State::kName:
            return name(in, out);
        case State::kParameters:
            return parameters(in, out);
        case State::kKey:
            return key(in, out);
        case State::kKeyGap:
            return key_gap(in, out);
        case State::kValueBegin:
            return value_begin(in);
        case State::kValue:
            return value(in, out);
        case State::kAfter:
            return after(in, out);
    }
    return false;
}

bool TaggedCalls::refuse(OutputEvents& out) {
    refuse_held(out);
    return to(State::kProse);
}

bool TaggedCalls::begin_name() {
    name_.clear();
    name_ended_ = false;
    return to(State::kName);
}

/// The call that has begun goes no further.
bool TaggedCalls::abandon() {
    calls_.abandon();
    begin_gap();
    close_due_ = true;
    in_section_now_ = false;
    return to(State::kProse);
}

bool TaggedCalls::between(Input& in, OutputEvents& out) {
    switch (enter(in, out)) {
        case Next::kMore:
            return false;
        case Next::kProse:
            return true;
        case Next::kSection:
            return to(State::kSection);
        case Next::kCall:
            return begin_name();
    }
    return false;
}

bool TaggedCalls::section(Input& in, OutputEvents& out) {
    if (is_space(in.front()) && !held_full()) {
        hold(in, 1);
        return true;
    }
    const MarkSet::Found found = in_section_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kNo || found.mark != 0) return refuse(out);
    hold(in, family_.call_open.size());
    return begin_name();
}

bool TaggedCalls::name(Input& in, OutputEvents& out) {
    const MarkSet::Found found = name_ends_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kYes) {
        if (name_.empty()) return refuse(out);
        if (found.mark < family_.name_ends.size()) hold(in, name_ends_[found.mark].size());
        return to(State::kParameters);
    }
    const char c = in.front();
    if (is_space(c) && !held_full()) {
        name_ended_ = !name_.empty();
    } else if (name_ended_ || name_.size() == kMaxName ||
               std::string_view("<>{}[]()\"'|=,;").contains(c) || is_space(c)) {
        return refuse(out);
    } else {
        name_.push_back(c);
    }
    hold(in, 1);
    return true;
}

void TaggedCalls::begin_call(OutputEvents& out) {
    begin_gap();
    calls_.begin(out, name_);
    arguments_.begin();
}

void TaggedCalls::flush(OutputEvents& out) {
    calls_.arguments(out, json_);
    json_.clear();
}

bool TaggedCalls::end_call(OutputEvents& out) {
    arguments_.end(json_);
    flush(out);
    calls_.end(out);
    begin_gap();
    return true;
}

bool TaggedCalls::parameters(Input& in, OutputEvents& out) {
    if (is_space(in.front()) && !held_full()) {
        if (calls_.open()) {
            in.take(1);
        } else {
            hold(in, 1);
        }
        return true;
    }
    const MarkSet::Found found = in_call_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kNo) return calls_.open() ? abandon() : refuse(out);
    if (!calls_.open()) begin_call(out);
    const std::string_view mark = in_call_[found.mark];
    if (mark == family_.parameter_open) {
        in.take(mark.size());
        key_.clear();
        return to(State::kKey);
    }
    end_call(out);
    if (mark == family_.call_close) in.take(mark.size());
    if (!in_section_now_ && !family_.section_open.empty()) close_due_ = true;
    return to(in_section_now_ ? State::kAfter : State::kProse);
}

bool TaggedCalls::key(Input& in, OutputEvents& /*out*/) {
    const MarkSet::Found found = key_ends_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kNo) {
        if (key_.size() == kMaxName) return abandon();
        key_.append(in.take(1));
        return true;
    }
    in.take(key_ends_[found.mark].size());
    key_ = std::string(trimmed(key_));
    const bool text = family_.first_key_end_is_text && found.mark == 0;
    type_ =
        text ? ToolShape::Type::kString : parameter_type(tools_, name_, key_, family_.otherwise);
    // The model says that it is not a string.
    if (family_.first_key_end_is_text && !text && type_ == ToolShape::Type::kString) {
        type_ = ToolShape::Type::kAny;
    }
    return to(family_.value_open.empty() ? State::kValueBegin : State::kKeyGap);
}

bool TaggedCalls::key_gap(Input& in, OutputEvents& /*out*/) {
    in.take(leading_space(in.rest));
    if (in.empty()) return false;
    const Match m = in.at(family_.value_open);
    if (m == Match::kPart) return false;
    if (m == Match::kNo) return abandon();
    in.take(family_.value_open.size());
    return to(State::kValueBegin);
}

bool TaggedCalls::value_begin(Input& in) {
    if (family_.line_break_first && in.front() == '\n') in.take(1);
    arguments_.begin_value(key_, type_);
    return to(State::kValue);
}

bool TaggedCalls::value(Input& in, OutputEvents& out) {
    const MarkSet::Found found = value_closes_.find(in.rest, false);
    if (found.begin > 0) {
        const std::size_t n = arguments_.value(json_, in.rest.substr(0, found.begin));
        in.take(n);
        flush(out);
        if (n < found.begin) return abandon();
    }
    if (found.match != Match::kYes) {
        if (in.last) in.take(in.rest.size());  // half a mark is no part of the value
        return false;
    }
    const bool good = arguments_.end_value(json_);
    flush(out);
    if (!good) return abandon();
    if (found.mark < family_.value_closes.size()) in.take(value_closes_[found.mark].size());
    return to(State::kParameters);
}

bool TaggedCalls::after(Input& in, OutputEvents& out) {
    const Next next = behind_call(in, out);
    if (next == Next::kMore) return false;
    return next == Next::kCall ? begin_name() : to(State::kProse);
}

}  // namespace stator::text
