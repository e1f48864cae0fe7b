#include "stator/text/parsers/reasoning.h"

#include <utility>

namespace stator::text {

namespace {

constexpr std::size_t kMaxSpace = 256;

}  // namespace

ReasoningParser::ReasoningParser(const ReasoningFamily& family, std::vector<std::string_view> ends,
                                 bool inside, std::unique_ptr<OutputParser> rest)
    : label_(family.label), inside_(inside), rest_(std::move(rest)) {
    for (const std::string_view mark : family.opens) opens_.add(mark);
    for (const std::string_view mark : family.closes) closes_.add(mark);
    own_closes_ = closes_.size();
    for (const std::string_view mark : ends) closes_.add(mark);
}

void ReasoningParser::push(std::string_view text, OutputEvents& out) {
    if (state_ == State::kRest) return rest_->push(text, out);
    run_piece(pending_, text, [&](Input& in) { run(in, out); });
}

void ReasoningParser::finish(OutputEvents& out) {
    std::string text;
    text.swap(pending_);
    Input in{text, true};
    run(in, out);
    if (state_ == State::kBeginning && !space_.empty()) {
        if (inside_) {
            out.add(OutputEvents::Kind::kReasoning, space_);
        } else {
            rest_->push(space_, out);
        }
    }
    rest_->finish(out);
}

void ReasoningParser::run(Input& in, OutputEvents& out) {
    while (!in.empty()) {
        switch (state_) {
            case State::kBeginning:
                if (!beginning(in)) return;
                if (state_ != State::kLabel && !space_.empty()) {
                    if (state_ == State::kThinking) {
                        out.add(OutputEvents::Kind::kReasoning, space_);
                    } else {
                        rest_->push(space_, out);
                    }
                }
                break;
            case State::kLabel:
                if (!label(in)) return;
                break;
            case State::kThinking:
                if (!thinking(in, out)) return;
                break;
            case State::kRest:
                rest_->push(in.take(in.rest.size()), out);
                return;
        }
    }
}

bool ReasoningParser::beginning(Input& in) {
    while (!in.empty() && is_space(in.front()) && space_.size() < kMaxSpace) {
        space_.append(in.take(1));
    }
    if (in.empty()) return false;
    const MarkSet::Found found = opens_.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    if (found.match == Match::kYes) {
        in.take(opens_[found.mark].size());
        state_ = State::kLabel;
        return true;
    }
    state_ = inside_ ? State::kThinking : State::kRest;
    return true;
}

bool ReasoningParser::label(Input& in) {
    const Match m = label_.empty() ? Match::kNo : in.at(label_);
    if (m == Match::kPart) return false;
    if (m == Match::kYes) in.take(label_.size());
    state_ = State::kThinking;
    return true;
}

bool ReasoningParser::thinking(Input& in, OutputEvents& out) {
    const MarkSet::Found found = closes_.find(in.rest, in.last);
    if (found.begin > 0) out.add(OutputEvents::Kind::kReasoning, in.take(found.begin));
    if (found.match != Match::kYes) return false;
    if (found.mark < own_closes_) in.take(closes_[found.mark].size());
    state_ = State::kRest;
    return true;
}

}  // namespace stator::text
