// Outputs of every family as files: what is content, thinking and calls in them, however they are
// cut. A file names its format once; a case may change it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "stator/codec/json.h"
#include "stator/text/parsers/parsed_output_fixture.h"

namespace stator::text {
namespace {

using codec::JsonView;

std::string string_of(JsonView v) { return std::string(v.as_string().value_or("")); }

ToolShape::Type type_of(std::string_view name) {
    using Type = ToolShape::Type;
    if (name == "string") return Type::kString;
    if (name == "number") return Type::kNumber;
    if (name == "integer") return Type::kInteger;
    if (name == "boolean") return Type::kBoolean;
    if (name == "object") return Type::kObject;
    if (name == "array") return Type::kArray;
    return Type::kAny;
}

void read_options(JsonView v, OutputParserOptions& options) {
    if (v.find("tool_format").present()) options.format.tools = string_of(v.find("tool_format"));
    if (v.find("reasoning_format").present()) {
        options.format.reasoning = string_of(v.find("reasoning_format"));
    }
    if (const auto b = v.find("begins_in_reasoning").as_bool()) options.begins_in_reasoning = *b;
    if (const auto b = v.find("forced").as_bool()) options.forced = *b;
    if (v.find("forced_name").present()) options.forced_name = string_of(v.find("forced_name"));
    v.find("tools").each_member([&](std::string_view name, JsonView parameters) {
        ToolShape shape;
        shape.name = std::string(name);
        parameters.each_member([&](std::string_view parameter, JsonView type) {
            shape.parameters.emplace(parameter, type_of(type.as_string().value_or("")));
            return true;
        });
        options.tools.push_back(std::move(shape));
        return true;
    });
}

ParsedOutput read_expected(JsonView v) {
    ParsedOutput expected;
    expected.content = string_of(v.find("content"));
    expected.reasoning = string_of(v.find("reasoning"));
    v.find("calls").each_element([&](std::size_t, JsonView call) {
        expected.calls.push_back({string_of(call.find("name")), string_of(call.find("arguments")),
                                  call.find("complete").as_bool().value_or(true)});
        return true;
    });
    return expected;
}

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
    const char* folder = std::getenv("STATOR_PARSER_TRANSCRIPTS");
    ASSERT_NE(folder, nullptr) << "STATOR_PARSER_TRANSCRIPTS names test/transcripts/parsers";
    std::set<std::string> tool_formats_seen;
    std::set<std::string> reasoning_formats_seen;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::ifstream file(entry.path());
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        codec::JsonDocument document;
        const auto root = document.parse(text);
        ASSERT_TRUE(root) << entry.path() << ": " << root.error().message;
        OutputParserOptions common;
        read_options(*root, common);
        root->find("cases").each_element([&](std::size_t, JsonView item) {
            OutputParserOptions options = common;
            read_options(item, options);
            SCOPED_TRACE(entry.path().filename().string() + ": " + string_of(item.find("name")));
            tool_formats_seen.insert(options.format.tools);
            reasoning_formats_seen.insert(options.format.reasoning);
            const std::string output = string_of(item.find("text"));
            const ParsedOutput whole = parse_whole(options, output);
            expect_as_written(whole, read_expected(item));
            expect_the_same_however_cut(options, output, whole);
            expect_beginnings_to_agree(options, output, whole);
            return true;
        });
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
