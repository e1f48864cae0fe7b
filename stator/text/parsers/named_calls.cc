#include "stator/text/parsers/named_calls.h"

namespace stator::text {

NamedCalls::NamedCalls(const NamedCallFamily& family)
    : SectionedCalls({.section_open = family.section_open,
                      .section_close = family.section_close,
                      .call_open = family.call_open,
                      .call_close = family.call_close}),
      family_(family) {
    for (const std::string_view mark : family.name_ends) name_ends_.add(mark);
}

bool NamedCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kProse:
            return between(in, out);
        case State::kSection:
            return section(in, out);
        case State::kKind:
            return kind(in, out);
        case State::kName:
            return name(in, out);
        case State::kId:
            return id(in, out);
        case State::kBefore:
            return before(in, out);
        case State::kArguments:
            return arguments(in, out);
        case State::kAfter:
            return after(in, out);
        case State::kClose:
            return close(in, out);
        case State::kList:
            return list(in, out);
    }
    return false;
}

bool NamedCalls::begin_name() {
    name_.clear();
    name_ended_ = false;
    read_ = 0;
    return to(family_.kind_end.empty() ? State::kName : State::kKind);
}

bool NamedCalls::refuse(OutputEvents& out) {
    refuse_held(out);
    return to(State::kProse);
}

bool NamedCalls::between(Input& in, OutputEvents& out) {
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

bool NamedCalls::section(Input& in, OutputEvents& out) {
    if (is_space(in.front()) && !held_full()) {
        hold(in, 1);
        return true;
    }
    const MarkSet::Found found = in_section_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kNo) {
        close_due_ = calls_.any();
        return refuse(out);
    }
    hold(in, in_section_[found.mark].size());
    if (found.mark == 0) return begin_name();
    return refuse(out);  // a section without a call
}

bool NamedCalls::kind(Input& in, OutputEvents& out) {
    const Match m = in.at(family_.kind_end);
    if (m == Match::kPart) return false;
    if (m == Match::kYes) {
        hold(in, family_.kind_end.size());
        return to(State::kName);
    }
    if (++read_ > kMaxName || is_space(in.front())) return refuse(out);
    hold(in, 1);
    return true;
}

bool NamedCalls::name(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (family_.lists && name_.empty()) {
        if (is_space(c) && !held_full()) {
            hold(in, 1);
            return true;
        }
        if (c == '[' || c == '{') {
            list_.begin(false);
            return to(State::kList);
        }
    }
    const MarkSet::Found found = name_ends_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kYes) {
        const std::string_view mark = name_ends_[found.mark];
        if (family_.plain_name != nullptr) name_ = std::string(family_.plain_name(name_));
        if (name_.empty()) return refuse(out);
        if (mark != "{") hold(in, mark.size());
        filler_taken_ = false;
        return to(mark == family_.id_open && !mark.empty() ? State::kId : State::kBefore);
    }
    if (is_space(c) && !held_full()) {
        name_ended_ = !name_.empty();
        hold(in, 1);
        return true;
    }
    if (name_ended_ || name_.size() == kMaxName || is_space(c) ||
        std::string_view("<[{\"").contains(c)) {
        return refuse(out);
    }
    name_.push_back(c);
    hold(in, 1);
    return true;
}

bool NamedCalls::id(Input& in, OutputEvents& out) {
    const Match m = in.at(family_.name_ends.front());
    if (m == Match::kPart) return false;
    if (m == Match::kYes) {
        hold(in, family_.name_ends.front().size());
        return to(State::kBefore);
    }
    if (++read_ > kMaxName || is_space(in.front())) return refuse(out);
    hold(in, 1);
    return true;
}

bool NamedCalls::before(Input& in, OutputEvents& out) {
    const char c = in.front();
    if (c == '{') {
        begin_gap();
        calls_.begin(out, name_);
        scan_ = JsonScan();
        return to(State::kArguments);
    }
    if (is_space(c) && !held_full()) {
        hold(in, 1);
        return true;
    }
    if (!family_.before_arguments.empty() && !filler_taken_) {
        const Match m = in.at(family_.before_arguments);
        if (m == Match::kPart) return false;
        if (m == Match::kYes) {
            filler_taken_ = true;
            hold(in, family_.before_arguments.size());
            return true;
        }
    }
    return refuse(out);
}

bool NamedCalls::arguments(Input& in, OutputEvents& out) {
    calls_.pass(scan_, in, out);
    if (scan_.open()) return false;
    filler_taken_ = false;
    if (scan_.done()) {
        calls_.end(out);
        begin_gap();
        return to(State::kAfter);
    }
    calls_.abandon();
    begin_gap();
    close_due_ = true;
    in_section_now_ = false;
    return to(State::kProse);
}

/// Behind the arguments, up to the call's end.
bool NamedCalls::after(Input& in, OutputEvents& out) {
    take_gap(in, out);
    if (in.empty()) return false;
    if (!family_.after_arguments.empty() && !filler_taken_) {
        const Match m = in.at(family_.after_arguments);
        if (m == Match::kPart) return false;
        if (m == Match::kYes) {
            filler_taken_ = true;
            in.take(family_.after_arguments.size());
            begin_gap();
            return true;
        }
    }
    if (!family_.call_close.empty()) {
        const Match m = in.at(family_.call_close);
        if (m == Match::kPart) return false;
        if (m == Match::kYes) {
            in.take(family_.call_close.size());
            begin_gap();
            return to(in_section_now_ ? State::kClose : State::kProse);
        }
        close_due_ = true;
    }
    return to(in_section_now_ ? State::kClose : State::kProse);
}

bool NamedCalls::close(Input& in, OutputEvents& out) {
    const Next next = behind_call(in, out);
    if (next == Next::kMore) return false;
    return next == Next::kCall ? begin_name() : to(State::kProse);
}

bool NamedCalls::list(Input& in, OutputEvents& out) {
    switch (list_.read(in, calls_, held_, out)) {
        case JsonCallList::Result::kMore:
            return false;
        case JsonCallList::Result::kNoCall:
            return refuse(out);
        case JsonCallList::Result::kBroken:
            calls_.abandon();
            [[fallthrough]];
        case JsonCallList::Result::kDone:
            begin_gap();
            return to(State::kProse);
    }
    return false;
}

}  // namespace stator::text
