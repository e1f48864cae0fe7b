// Outputs of every family as files: what is content, thinking and calls in them, however they are
// cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "stator/codec/json.h"
#include "stator/text/parsers/transcript_fixture.h"

namespace stator::text {
namespace {

void expect_as_written(const ParsedOutput& parsed, const ParsedOutput& expected) {
    EXPECT_EQ(parsed.content, expected.content);
    EXPECT_EQ(parsed.reasoning, expected.reasoning);
    ASSERT_EQ(parsed.calls.size(), expected.calls.size());
    for (std::size_t i = 0; i < parsed.calls.size(); ++i) {
        EXPECT_EQ(parsed.calls[i].name, expected.calls[i].name);
        EXPECT_EQ(parsed.calls[i].arguments, expected.calls[i].arguments);
        EXPECT_EQ(parsed.calls[i].complete, expected.calls[i].complete);
        if (!parsed.calls[i].complete) continue;
        codec::JsonDocument document;
        const auto json = document.parse(parsed.calls[i].arguments);
        EXPECT_TRUE(json && json->type() == codec::JsonType::kObject) << parsed.calls[i].arguments;
    }
}

void expect_the_same_however_cut(const OutputParserOptions& options, std::string_view text,
                                 const ParsedOutput& whole) {
    for (const std::size_t size : {1U, 2U, 3U, 5U, 7U, 11U}) {
        EXPECT_EQ(parse_pieces(options, cut_evenly(text, size)).events, whole.events)
            << "in pieces of " << size;
    }
    for (std::size_t at = 1; at < text.size(); ++at) {
        if (character_border(text, at) != at) continue;
        const auto halves = parse_pieces(options, {text.substr(0, at), text.substr(at)});
        ASSERT_EQ(halves.events, whole.events) << "cut at " << at;
    }
}

/// Whatever is cut off at the end, nothing that was said before is taken back.
void expect_beginnings_to_agree(const OutputParserOptions& options, std::string_view text,
                                const ParsedOutput& whole) {
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (character_border(text, at) != at) continue;
        const auto parsed = parse_whole(options, text.substr(0, at));
        EXPECT_LE(parsed.calls.size(), whole.calls.size()) << "cut off at " << at;
        for (std::size_t i = 0; i < std::min(parsed.calls.size(), whole.calls.size()); ++i) {
            EXPECT_EQ(parsed.calls[i].name, whole.calls[i].name) << "cut off at " << at;
            EXPECT_TRUE(whole.calls[i].arguments.starts_with(parsed.calls[i].arguments))
                << "cut off at " << at << ": " << parsed.calls[i].arguments;
        }
    }
}

TEST(Transcripts, SayWhatTheyMustHoweverTheyAreCut) {
    std::set<std::string> tool_formats_seen;
    std::set<std::string> reasoning_formats_seen;
    for (const Transcript& t : read_transcripts()) {
        SCOPED_TRACE(t.name);
        tool_formats_seen.insert(t.options.format.tools);
        reasoning_formats_seen.insert(t.options.format.reasoning);
        const ParsedOutput whole = parse_whole(t.options, t.text);
        expect_as_written(whole, t.expected);
        expect_the_same_however_cut(t.options, t.text, whole);
        expect_beginnings_to_agree(t.options, t.text, whole);
    }
    for (const auto name : tool_formats()) {
        EXPECT_TRUE(tool_formats_seen.contains(std::string(name))) << name << " has no transcript";
    }
    for (const auto name : reasoning_formats()) {
        EXPECT_TRUE(reasoning_formats_seen.contains(std::string(name)))
            << name << " has no transcript";
    }
}

}  // namespace
}  // namespace stator::text
