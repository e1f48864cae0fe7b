// What must hold for every family and any text: random ones made of the family's marks, pieces of
// calls and junk.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "stator/codec/json.h"
#include "stator/text/parsers/json_scan.h"
#include "stator/text/parsers/transcript_fixture.h"

namespace stator::text {
namespace {

/// Marks of all families, and what stands between them.
const std::vector<std::string>& pieces() {
    static const std::vector<std::string> all{
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<tool_calls>",
        "</tool_calls>",
        "<TOOLCALL>",
        "</TOOLCALL>",
        "functools",
        "<|tool_call|>",
        "<|/tool_call|>",
        "<|action_start|><|plugin|>",
        "<|action_end|>",
        "```json",
        "```",
        "```tool_code",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
        "function<｜tool▁sep｜>f\n```json\n",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_end|>",
        "<|tool_call_argument_begin|>",
        "functions.f:0",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<function=f>",
        "</function>",
        "<parameter=text>",
        "<parameter=n>",
        "</parameter>",
        "<seed:tool_call>",
        "</seed:tool_call>",
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<invoke name=\"f\">",
        "</invoke>",
        "<parameter name=\"text\">",
        "<parameter name=\"n\">",
        "<｜DSML｜function_calls>",
        "</｜DSML｜function_calls>",
        "<｜DSML｜invoke name=\"f\">",
        "</｜DSML｜invoke>",
        "<｜DSML｜parameter name=\"text\" string=\"true\">",
        "<｜DSML｜parameter name=\"n\" string=\"false\">",
        "</｜DSML｜parameter>",
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
        "<|python_start|>",
        "<|python_end|>",
        "<|tool_call_start|>",
        "<|tool_call_end|>",
        "<function_calls>",
        "</function_calls>",
        "<|tool_call>",
        "<tool_call|>",
        "call:f{",
        "<|\"|>",
        "<start_function_call>",
        "<end_function_call>",
        "<escape>",
        "<|channel|>",
        "<|message|>",
        "<|start|>assistant",
        "<|end|>",
        "<|call|>",
        "<|return|>",
        "<|constrain|>json",
        "analysis",
        "commentary",
        "final",
        " to=functions.f",
        "<think>",
        "</think>",
        "◁think▷",
        "◁/think▷",
        "[THINK]",
        "[/THINK]",
        "<|channel>thought\n",
        "<channel|>",
        "Here is my thought process:",
        "Here is my response:",
        "<seed:think>",
        "</seed:think>",
        "<mm:think>",
        "</mm:think>",
        "{\"name\": \"f\", \"arguments\": {\"x\": 1}}",
        "{\"name\": \"f\", \"parameters\": ",
        "\"name\": \"g\"",
        "\"arguments\": {",
        "{\"x\": [1, {\"y\": \"",
        "f(a=1, b='",
        "f(",
        "a=",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        "\"",
        "'",
        "\\",
        "\\u00e9",
        "\\x41",
        ",",
        ";",
        ":",
        "=",
        "1",
        "-2.5e3",
        "True",
        "null",
        "text",
        "f",
        " ",
        "\n",
        "\n\n",
        "<",
        "|",
        "`",
        "é",
        "👋🏽",
        "▁",
        "\t",
        "a long stretch of ordinary text, as most of it is. "};
    return all;
}

rc::Gen<std::string> output_text() {
    return rc::gen::map(rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(pieces())),
                        [](const std::vector<std::string>& parts) {
                            std::string text;
                            for (const std::string& part : parts) text += part;
                            return text;
                        });
}

/// Pieces of the text, cut between characters.
std::vector<std::string_view> cut_at_random(std::string_view text) {
    std::vector<std::string_view> cut;
    while (!text.empty()) {
        const auto most = *rc::gen::inRange<std::size_t>(1, 40);
        const std::size_t n = character_border(text, std::min(most, text.size()));
        cut.push_back(text.substr(0, n));
        text.remove_prefix(n);
    }
    return cut;
}

OutputParserOptions options_of(std::string_view tools, std::string_view reasoning) {
    OutputParserOptions options;
    options.format = {std::string(tools), std::string(reasoning)};
    ToolShape f;
    f.name = "f";
    f.parameters = {{"text", ToolShape::Type::kString}, {"n", ToolShape::Type::kInteger}};
    options.tools.push_back(f);
    return options;
}

std::string reasoning_of(std::string_view tools) {
    if (tools == "harmony") return "";
    const auto names = reasoning_formats();
    return std::string(*rc::gen::elementOf(names));
}

void check_calls(const ParsedOutput& parsed) {
    for (const auto& call : parsed.calls) {
        RC_ASSERT(!call.name.empty());
        if (!call.complete) continue;
        RC_ASSERT(is_json(call.arguments));
        RC_ASSERT(call.arguments.find('{') != std::string::npos);
    }
}

class EveryFamily : public testing::TestWithParam<std::string_view> {};

TEST_P(EveryFamily, SaysTheSameHoweverTheTextIsCut) {
    EXPECT_TRUE(rc::check([&] {
        auto options = options_of(GetParam(), reasoning_of(GetParam()));
        options.begins_in_reasoning = *rc::gen::arbitrary<bool>();
        options.forced = *rc::gen::inRange(0, 8) == 0;
        if (*rc::gen::arbitrary<bool>()) options.forced_name = "f";
        const std::string text = *output_text();
        const ParsedOutput whole = parse_whole(options, text);
        check_calls(whole);
        RC_ASSERT(parse_pieces(options, cut_at_random(text)).events == whole.events);
        RC_ASSERT(parse_pieces(options, cut_evenly(text, 1)).events == whole.events);
    }));
}

std::string without_space(std::string_view text) {
    std::string plain;
    for (const char c : text) {
        if (c != ' ' && c != '\n' && c != '\t') plain.push_back(c);
    }
    return plain;
}

/// A transcript of the family with parts of it doubled, gone or replaced by something else.
std::string spoilt(std::string text) {
    const int times = *rc::gen::inRange(1, 4);
    for (int i = 0; i < times; ++i) {
        const std::size_t from =
            character_border(text, *rc::gen::inRange<std::size_t>(0, text.size() + 1));
        const std::size_t to = character_border(
            text, std::min(text.size(), from + *rc::gen::inRange<std::size_t>(0, 20)));
        const std::string part = text.substr(from, to - from);
        switch (*rc::gen::inRange(0, 4)) {
            case 0:
                text.erase(from, to - from);
                break;
            case 1:
                text.insert(from, part);
                break;
            case 2:
                text.insert(from, *rc::gen::elementOf(pieces()));
                break;
            default:
                text.replace(from, to - from, *rc::gen::elementOf(pieces()));
        }
    }
    return text;
}

TEST(SpoiltTranscripts, SayTheSameHoweverTheyAreCut) {
    const auto transcripts = read_transcripts();
    EXPECT_TRUE(rc::check([&] {
        for (int i = 0; i < 20; ++i) {
            const auto& t = *rc::gen::elementOf(transcripts);
            const std::string text = spoilt(t.text);
            const ParsedOutput whole = parse_whole(t.options, text);
            check_calls(whole);
            RC_ASSERT(parse_pieces(t.options, cut_at_random(text)).events == whole.events);
            RC_ASSERT(parse_pieces(t.options, cut_evenly(text, 1)).events == whole.events);
        }
    }));
}

/// Content is text that was there, and nothing of it is missing where no call was made.
TEST_P(EveryFamily, LosesNothing) {
    EXPECT_TRUE(rc::check([&] {
        const auto options = options_of(GetParam(), "");
        const std::string text = *output_text();
        const ParsedOutput parsed = parse_whole(options, text);
        if (GetParam() == "harmony") return;  // its headers are no content
        if (parsed.calls.empty()) {
            RC_ASSERT(without_space(parsed.content) == without_space(text));
            return;
        }
        RC_ASSERT(parsed.content.size() < text.size());
    }));
}

/// Between marks that are the family's own, text of a user's kind comes through as it is.
TEST_P(EveryFamily, PassesOrdinaryText) {
    EXPECT_TRUE(rc::check([&] {
        const auto letters = rc::gen::container<std::string>(
            rc::gen::elementOf(std::string("abc xyz.,!? \n12<>|[]{}()\"'`:=")));
        const std::string text = "Text: " + *letters;
        const ParsedOutput parsed = parse_whole(options_of(GetParam(), ""), text);
        RC_ASSERT(parsed.content == text);
        RC_ASSERT(parsed.calls.empty());
    }));
}

std::string test_name(const testing::TestParamInfo<std::string_view>& info) {
    return std::string(info.param);
}
INSTANTIATE_TEST_SUITE_P(OutputParsers, EveryFamily, testing::ValuesIn(tool_formats()), test_name);

/// Families whose arguments are JSON pass them byte by byte.
TEST(Arguments, PassUnchangedWhereTheyAreJson) {
    struct Family {
        std::string_view name;
        std::string_view before;
        std::string_view behind;
    };
    const std::vector<Family> families{
        {"hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": ", "}\n</tool_call>"},
        {"llama3_json", "{\"name\": \"f\", \"parameters\": ", "}"},
        {"mistral", "[TOOL_CALLS]f[ARGS]", ""},
        {"mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": ", "}]"},
        {"deepseek_v3",
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n",
         "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
        {"deepseek_v3_1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>",
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
        {"kimi_k2",
         "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>",
         "<|tool_call_end|><|tool_calls_section_end|>"},
        {"harmony", "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
         "<|call|>"},
    };
    EXPECT_TRUE(rc::check([&] {
        const auto family = *rc::gen::elementOf(families);
        // An object whose strings hold anything, marks among it.
        std::string arguments = "{ \"k\" :\t[";
        for (int i = 0; i < *rc::gen::inRange(0, 5); ++i) {
            if (i > 0) arguments += " , ";
            arguments += "{\"v\":\"";
            append_json_escaped(arguments, *output_text());
            arguments += "\", \"n\" : -0.5E+3}";
        }
        arguments += " ]\n}";
        const std::string text =
            std::string(family.before) + arguments + std::string(family.behind);
        const ParsedOutput parsed = parse_whole(options_of(family.name, ""), text);
        RC_ASSERT(parsed.calls.size() == 1U);
        RC_ASSERT(parsed.calls[0].arguments == arguments);
        RC_ASSERT(parsed.calls[0].complete);
        RC_ASSERT(parsed.content.empty());
    }));
}

TEST(JsonScan, AgreesWithTheJsonReader) {
    EXPECT_TRUE(rc::check([] {
        const auto parts = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(
            std::vector<std::string>{"{", "}", "[", "]", ",", ":", "\"a\"", "\"\\n\"", "1",
                                     "-0.5e1", "01", "true", "null", "nul", " ", "\"", "\\"}));
        std::string text;
        for (const auto& part : parts) text += part;
        codec::JsonDocument document;
        RC_ASSERT(is_json(text) == document.parse(text).has_value());
    }));
}

TEST(Held, IsBounded) {
    // Arguments before the name: held back up to a bound, then content.
    const std::string text = "<tool_call>{\"arguments\": {\"x\": \"" + std::string(100'000, 'x') +
                             "\"}, \"name\": \"f\"}</tool_call>";
    const auto options = options_of("hermes", "");
    EXPECT_EQ(parse_whole(options, text).content, text);
    auto parser = make_output_parser(options);
    ASSERT_TRUE(parser);
    OutputEvents out;
    std::size_t pushed = 0;
    for (const auto piece : cut_evenly(text, 1000)) {
        pushed += piece.size();
        (*parser)->push(piece, out);
        EXPECT_LE(pushed - out.text.size(), 64U * 1024 + 1000);
    }
}

TEST(Values, LongOnesGoOutBeforeTheyEnd) {
    ToolShape f;
    f.name = "f";
    f.parameters = {{"list", ToolShape::Type::kArray}, {"n", ToolShape::Type::kNumber}};
    OutputParserOptions options;
    options.format.tools = "qwen3_coder";
    options.tools.push_back(f);
    std::string list = "[";
    for (int i = 0; i < 30'000; ++i) list += "\"item\",";
    list += "1]";
    const auto call = [](std::string_view key, std::string_view value) {
        return "<tool_call>\n<function=f>\n<parameter=" + std::string(key) + ">\n" +
               std::string(value) + "\n</parameter>\n</function>\n</tool_call>";
    };
    const auto parsed = parse_whole(options, call("list", list));
    ASSERT_EQ(parsed.calls.size(), 1U);
    EXPECT_TRUE(parsed.calls[0].complete);
    EXPECT_EQ(parsed.calls[0].arguments, "{\"list\": " + list + "}");
    const auto text = parse_whole(options, call("n", std::string(100'000, 'x')));
    ASSERT_EQ(text.calls.size(), 1U);
    EXPECT_EQ(text.calls[0].arguments, "{\"n\": \"" + std::string(100'000, 'x') + "\"}");
    const auto broken = parse_whole(options, call("list", list + "oops"));
    ASSERT_EQ(broken.calls.size(), 1U);
    EXPECT_FALSE(broken.calls[0].complete);
    EXPECT_EQ(broken.events,
              parse_pieces(options, cut_evenly(call("list", list + "oops"), 777)).events);
}

}  // namespace
}  // namespace stator::text
