#include "stator/text/parsers/nested_calls.h"

#include "stator/text/parsers/argument_json.h"

namespace stator::text {
namespace {

constexpr std::size_t kMaxDepth = 64;
constexpr std::string_view kMark = "]<]minimax[>[";
constexpr std::string_view kOpen = "]<]minimax[>[<tool_call>";
constexpr std::string_view kClose = "]<]minimax[>[</tool_call>";
constexpr std::string_view kInvoke = "]<]minimax[>[<invoke name=\"";
constexpr std::string_view kNameEnd = "\">";

}  // namespace

bool NestedCalls::step(Input& in, OutputEvents& out) {
    switch (state_) {
        case State::kProse:
            return between(in, out);
        case State::kSection:
            return section(in, out);
        case State::kName:
            return name(in, out);
        case State::kInside:
            return inside(in, out);
        case State::kTag:
            return tag(in, out);
    }
    return false;
}

bool NestedCalls::abandon() {
    calls_.abandon();
    begin_gap();
    close_due_ = true;
    return to(State::kProse);
}

bool NestedCalls::between(Input& in, OutputEvents& out) {
    static const MarkSet kOpens{kOpen};
    static const MarkSet kOpensOrCloses{kOpen, kClose};
    const auto mark = prose(in, close_due_ ? kOpensOrCloses : kOpens, out);
    if (!mark) return false;
    if (*mark == 0) return to(State::kSection);
    close_due_ = false;
    begin_gap();
    return true;
}

/// In a section, where a call begins or the section ends.
bool NestedCalls::section(Input& in, OutputEvents& out) {
    static const MarkSet kMarks{kInvoke, kClose};
    if (is_space(in.front()) && !held_full()) {
        hold(in, 1);
        return true;
    }
    const MarkSet::Found found = kMarks.at(in.rest, in.last);
    if (found.match == Match::kPart) return false;
    const bool after_call = trimmed(held_).empty();
    if (found.match == Match::kYes && found.mark == 0) {
        hold(in, kInvoke.size());
        name_.clear();
        return to(State::kName);
    }
    if (found.match == Match::kYes && after_call) {
        in.take(kClose.size());
        begin_gap();
    } else {
        close_due_ = after_call;
        give_back(out);
    }
    return to(State::kProse);
}

bool NestedCalls::name(Input& in, OutputEvents& out) {
    const Match m = in.at(kNameEnd);
    if (m == Match::kPart) return false;
    if (m == Match::kYes && !name_.empty()) {
        in.take(kNameEnd.size());
        begin_gap();
        calls_.begin(out, name_);
        elements_.assign(1, Element{});
        text_.clear();
        return to(State::kInside);
    }
    const char c = in.front();
    if (name_.size() == kMaxName || is_space(c) || std::string_view("\"<>").contains(c)) {
        give_back(out);
        return to(State::kProse);
    }
    name_.push_back(c);
    hold(in, 1);
    return true;
}

/// Text of an element, up to the next tag.
bool NestedCalls::inside(Input& in, OutputEvents& out) {
    static const MarkSet kMarks{kMark};
    const Element& element = elements_.back();
    const MarkSet::Found found = kMarks.find(in.rest, false);
    if (element.kind == Kind::kString) {
        std::string json;
        append_json_escaped(json, in.take(found.begin));
        calls_.arguments(out, json);
    } else {
        for (std::size_t i = 0; i < found.begin; ++i) {
            const bool text = element.kind == Kind::kOpen && elements_.size() > 1;
            const bool stray = !text && !is_space(in.front());
            if (stray || text_.size() == kMaxHeld) return abandon();
            const std::string_view c = in.take(1);
            if (text) text_.append(c);
        }
    }
    if (found.match != Match::kYes) {
        if (in.last) in.take(in.rest.size());  // half a mark is no part of the text
        return false;
    }
    in.take(kMark.size());
    tag_.clear();
    return to(State::kTag);
}

bool NestedCalls::tag(Input& in, OutputEvents& out) {
    const char c = in.front();
    const bool good = tag_.empty() ? c == '<' : c != '<';
    if (!good || tag_.size() == kMaxName) return abandon();
    in.take(1);
    if (c != '>') {
        tag_.push_back(c);
        return true;
    }
    tag_.erase(0, 1);
    return tag_.starts_with('/') ? close(out) : open(out);
}

bool NestedCalls::open(OutputEvents& out) {
    Element& around = elements_.back();
    const bool call = elements_.size() == 1;
    if (tag_.empty() || elements_.size() == kMaxDepth || around.kind == Kind::kString ||
        !trimmed(text_).empty()) {
        return abandon();
    }
    std::string json = ", ";
    if (around.kind == Kind::kOpen) {
        around.kind = !call && tag_ == "item" ? Kind::kList : Kind::kObject;
        json = around.kind == Kind::kList ? "[" : "{";
    }
    if (around.kind == Kind::kObject) {
        json.push_back('"');
        append_json_escaped(json, tag_);
        json.append("\": ");
    }
    Element element;
    if (call) element.type = parameter_type(tools_, name_, tag_, ToolShape::Type::kString);
    if (element.type == ToolShape::Type::kString) {
        element.kind = Kind::kString;
        json.push_back('"');
    }
    calls_.arguments(out, json);
    text_.clear();
    elements_.push_back(element);
    return to(State::kInside);
}

bool NestedCalls::close(OutputEvents& out) {
    const Element element = elements_.back();
    const bool call = elements_.size() == 1;
    if (call != (tag_ == "/invoke")) return abandon();
    elements_.pop_back();
    std::string json;
    switch (element.kind) {
        case Kind::kOpen:
            if (call) {
                json = "{}";
            } else {
                append_argument_json(json, trimmed(text_), element.type);
            }
            break;
        case Kind::kString:
            json = "\"";
            break;
        case Kind::kObject:
            json = "}";
            break;
        case Kind::kList:
            json = "]";
            break;
    }
    text_.clear();
    calls_.arguments(out, json);
    if (!call) return to(State::kInside);
    calls_.end(out);
    begin_gap();
    return to(State::kSection);
}

}  // namespace stator::text
