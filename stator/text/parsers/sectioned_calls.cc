#include "stator/text/parsers/sectioned_calls.h"

namespace stator::text {

SectionedCalls::SectionedCalls(const CallMarks& marks) : marks_(marks) {
    begins_.add(marks.section_open);
    if (marks.section_open.empty() || marks.calls_without_section) begins_.add(marks.call_open);
    begins_or_closes_ = begins_;
    begins_or_closes_.add(marks.call_close);
    begins_or_closes_.add(marks.section_close);
    in_section_.add(marks.call_open);
    in_section_.add(marks.section_close);
}

SectionedCalls::Next SectionedCalls::enter(Input& in, OutputEvents& out) {
    const auto mark = prose(in, close_due_ ? begins_or_closes_ : begins_, out);
    if (!mark) return Next::kMore;
    if (*mark >= begins_.size()) {
        if (begins_or_closes_[*mark] == marks_.section_close) close_due_ = false;
        begin_gap();
        return Next::kProse;
    }
    const bool is_section = !marks_.section_open.empty() && *mark == 0;
    in_section_now_ = is_section && !marks_.call_open.empty();
    return in_section_now_ ? Next::kSection : Next::kCall;
}

SectionedCalls::Next SectionedCalls::behind_call(Input& in, OutputEvents& out) {
    take_gap(in, out);
    if (in.empty()) return Next::kMore;
    const MarkSet::Found found = in_section_.at(in.rest, in.last);
    if (found.match == Match::kPart) return Next::kMore;
    if (found.match == Match::kYes && found.mark == 0) {
        hold_gap();
        hold(in, marks_.call_open.size());
        return Next::kCall;
    }
    in_section_now_ = false;
    if (found.match == Match::kYes) {
        in.take(marks_.section_close.size());
        begin_gap();
    } else {
        close_due_ = true;
    }
    return Next::kProse;
}

void SectionedCalls::refuse_held(OutputEvents& out) {
    give_back(out);
    in_section_now_ = false;
}

}  // namespace stator::text
