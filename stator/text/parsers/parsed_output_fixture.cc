#include "stator/text/parsers/parsed_output_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace stator::text {
namespace {

using Kind = OutputEvents::Kind;

/// Collects the events of one push after another.
void collect(const OutputEvents& out, OutputEvents& all) {
    for (const auto& e : out.events) all.add(e.kind, out.of(e), e.tool);
}

ParsedOutput summary(const OutputEvents& all) {
    ParsedOutput parsed;
    for (const auto& e : all.events) {
        const std::string text(all.of(e));
        const std::string tool = std::to_string(e.tool);
        switch (e.kind) {
            case Kind::kContent:
                parsed.content += text;
                parsed.events.push_back("content:" + text);
                break;
            case Kind::kReasoning:
                parsed.reasoning += text;
                parsed.events.push_back("reasoning:" + text);
                break;
            case Kind::kToolBegin:
                EXPECT_EQ(e.tool, parsed.calls.size()) << "calls are numbered in order";
                parsed.calls.push_back({text, "", false});
                parsed.events.push_back("begin " + tool + ":" + text);
                break;
            case Kind::kToolArguments:
                EXPECT_EQ(e.tool + 1, parsed.calls.size()) << "arguments of the last call";
                if (!parsed.calls.empty()) parsed.calls.back().arguments += text;
                parsed.events.push_back("arguments " + tool + ":" + text);
                break;
            case Kind::kToolEnd:
                EXPECT_EQ(e.tool + 1, parsed.calls.size()) << "the end of the last call";
                if (!parsed.calls.empty()) parsed.calls.back().complete = true;
                parsed.events.push_back("end " + tool);
                break;
        }
    }
    return parsed;
}

}  // namespace

ParsedOutput parse_pieces(const OutputParserOptions& options,
                          const std::vector<std::string_view>& pieces) {
    auto parser = make_output_parser(options);
    if (!parser) {
        ADD_FAILURE() << parser.error().message;
        return {};
    }
    OutputEvents all;
    OutputEvents out;
    for (const std::string_view piece : pieces) {
        out.clear();
        (*parser)->push(piece, out);
        collect(out, all);
    }
    out.clear();
    (*parser)->finish(out);
    collect(out, all);
    return summary(all);
}

ParsedOutput parse_whole(const OutputParserOptions& options, std::string_view text) {
    return parse_pieces(options, {text});
}

std::size_t character_border(std::string_view text, std::size_t at) {
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
    return std::min(at, text.size());
}

std::vector<std::string_view> cut_evenly(std::string_view text, std::size_t size) {
    std::vector<std::string_view> pieces;
    while (!text.empty()) {
        const std::size_t n = character_border(text, size);
        pieces.push_back(text.substr(0, n));
        text.remove_prefix(n);
    }
    return pieces;
}

}  // namespace stator::text
