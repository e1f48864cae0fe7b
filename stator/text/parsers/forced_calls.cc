#include "stator/text/parsers/forced_calls.h"

namespace stator::text {

bool ForcedCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kBeginning:
            return beginning(in, out);
        case State::kList:
            return list(in, out);
        case State::kArguments:
            calls_.pass(scan_, in, out);
            if (scan_.open()) return false;
            if (scan_.done()) calls_.end(out);
            calls_.abandon();
            begin_gap();
            state_ = State::kAfter;
            return true;
        case State::kAfter:
            return prose(in, none_, out).has_value();
    }
    return false;
}

bool ForcedCalls::beginning(Input& in, OutputEvents& out) {
    take_gap(in, out);
    if (in.empty()) return false;
    const char c = in.front();
    if (at_beginning() && !name_.empty() && c == '{') {
        begin_gap();
        calls_.begin(out, name_);
        state_ = State::kArguments;
    } else if (at_beginning() && name_.empty() && (c == '[' || c == '{')) {
        hold_gap();
        list_.begin(true);
        state_ = State::kList;
    } else {
        state_ = State::kAfter;
    }
    return true;
}

bool ForcedCalls::list(Input& in, OutputEvents& out) {
    switch (list_.read(in, calls_, held_, out)) {
        case JsonCallList::Result::kMore:
            return false;
        case JsonCallList::Result::kNoCall:
            give_back(out);
            break;
        case JsonCallList::Result::kBroken:
            calls_.abandon();
            [[fallthrough]];
        case JsonCallList::Result::kDone:
            begin_gap();
            break;
    }
    state_ = State::kAfter;
    return true;
}

}  // namespace stator::text
