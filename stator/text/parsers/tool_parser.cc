#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

using Kind = OutputEvents::Kind;

namespace {

/// White space that is held back before it is content in any case.
constexpr std::size_t kMaxGap = 256;

}  // namespace

void CallWriter::pass(JsonScan& scan, Input& in, OutputEvents& out) {
    while (!in.empty() && scan.open()) {
        const std::size_t n = scan.feed(in.rest);
        if (n > 0) arguments(out, in.take(n));
        if (in.empty() || !scan.open()) return;
        std::string escaped;
        append_json_escaped(escaped, in.take(1));
        arguments(out, escaped);
    }
}

void ToolParser::push(std::string_view text, OutputEvents& out) {
    run_piece(pending_, text, [&](Input& in) { run(in, out); });
}

void ToolParser::finish(OutputEvents& out) {
    std::string text;
    text.swap(pending_);
    Input in{text, true};
    run(in, out);
    end(out);
    if (!in.empty()) add_content(in.rest, out);
    if (!held_.empty()) give_back(out);
    if (!gap_.empty() && !calls_.any()) out.add(Kind::kContent, gap_);
    gap_.clear();
}

void ToolParser::run(Input& in, OutputEvents& out) {
    while (!in.empty() && step(in, out)) {
    }
}

void ToolParser::add_content(std::string_view text, OutputEvents& out) {
    if (text.empty()) return;
    if (!gap_.empty()) {
        out.add(Kind::kContent, gap_);
        gap_.clear();
    }
    in_gap_ = false;
    text_ = true;
    out.add(Kind::kContent, text);
}

void ToolParser::take_gap(Input& in, OutputEvents& out) {
    if (!in_gap_) return;
    while (!in.empty() && is_space(in.front())) {
        if (gap_.size() == kMaxGap) return add_content(in.take(1), out);
        gap_.append(in.take(1));
    }
}

void ToolParser::hold_gap() {
    held_.append(gap_);
    gap_.clear();
}

std::optional<std::size_t> ToolParser::prose(Input& in, const MarkSet& marks, OutputEvents& out) {
    take_gap(in, out);
    const MarkSet::Found found = marks.find(in.rest, in.last);
    if (found.begin > 0) add_content(in.take(found.begin), out);
    if (found.match != Match::kYes) return std::nullopt;
    hold_gap();
    hold(in, marks[found.mark].size());
    return found.mark;
}

void ToolParser::give_back(OutputEvents& out) {
    std::string text;
    text.swap(held_);
    add_content(text, out);
}

}  // namespace stator::text
