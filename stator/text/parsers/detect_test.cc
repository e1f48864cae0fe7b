#include <gtest/gtest.h>

#include <string>

#include "stator/text/parsers/output_parser.h"

namespace stator::text {
namespace {

/// As much of a template as shows its notations.
struct Shown {
    std::string_view in_template;
    OutputFormat format;
};

TEST(DetectOutputFormat, ByTheMarksOfATemplate) {
    const Shown all[] = {
        {"{{ messages[0].content }}", {"", ""}},
        {"<tool_call>\\n{\"name\": <function-name>", {"hermes", ""}},
        {"<tool_call>{\"name\": … <think>\\n\\n</think>\\n\\n", {"hermes", "qwen3"}},
        {"<tool_call>\\n<function=x>\\n<parameter=y>", {"qwen3_coder", ""}},
        {"<tool_call>{{ tc.name }}<arg_key>… </think>", {"glm45", "glm45"}},
        {"'<|start|>assistant<|channel|>final<|message|>'", {"harmony", "gpt_oss"}},
        {"<｜Assistant｜> <｜tool▁calls▁begin｜> ```json </think>", {"deepseek_v3", "deepseek_r1"}},
        {"{%- if not thinking %}</think> <｜Assistant｜><｜tool▁calls▁begin｜>",
         {"deepseek_v3_1", "deepseek_v3_1"}},
        {"<｜DSML｜function_calls>", {"deepseek_v3_2", ""}},
        {"<|tool_calls_section_begin|> <think></think>", {"kimi_k2", "kimi_k25"}},
        {"<minimax:tool_call> </think>", {"minimax_m2", "minimax_m2"}},
        {"[TOOL_CALLS] [THINK]", {"mistral", "mistral"}},
        {"<|tool_call>call: <tool_call|> <|channel>thought <channel|>", {"gemma4", "gemma4"}},
        {"<|python_tag|>", {"llama3_json", ""}},
        {"<seed:tool_call><function= <seed:think>", {"seed_oss", "seed_oss"}},
        {"<TOOLCALL>[ </think>", {"nemotron_nano", "nemotron_nano"}},
    };
    for (const Shown& shown : all) {
        const OutputFormat found = detect_output_format(shown.in_template);
        EXPECT_EQ(found.tools, shown.format.tools) << shown.in_template;
        EXPECT_EQ(found.reasoning, shown.format.reasoning) << shown.in_template;
        OutputParserOptions options;
        options.format = found;
        EXPECT_TRUE(make_output_parser(options)) << shown.in_template;
    }
}

TEST(EndsInReasoning, IfThePromptOpensIt) {
    EXPECT_TRUE(ends_in_reasoning("qwen3", "<|im_start|>assistant\n<think>\n"));
    EXPECT_FALSE(ends_in_reasoning("qwen3", "<|im_start|>assistant\n"));
    EXPECT_FALSE(ends_in_reasoning("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n"));
    EXPECT_FALSE(ends_in_reasoning("qwen3", "say <think>ing</think> <|im_start|>assistant\n"));
    EXPECT_TRUE(ends_in_reasoning("gemma4", "<|turn>model\n<|channel>thought\n"));
    EXPECT_TRUE(ends_in_reasoning("deepseek_r1", "<｜Assistant｜>")) << "it always thinks";
    EXPECT_FALSE(ends_in_reasoning("deepseek_r1", "<｜Assistant｜><think>\n</think>\n"));
    EXPECT_TRUE(ends_in_reasoning("gpt_oss", "<|start|>assistant<|channel|>analysis<|message|>"));
    EXPECT_FALSE(ends_in_reasoning("", "<think>"));
    EXPECT_FALSE(ends_in_reasoning("nonsense", "<think>"));
}

TEST(ReasoningEndMark, IsThatOfTheNotation) {
    EXPECT_EQ(reasoning_end_mark("qwen3"), "</think>");
    EXPECT_EQ(reasoning_end_mark("mistral"), "[/THINK]");
    EXPECT_EQ(reasoning_end_mark(""), "");
    for (const auto name : reasoning_formats()) EXPECT_FALSE(reasoning_end_mark(name).empty());
}

TEST(MakeOutputParser, NamesWhatThereIs) {
    OutputParserOptions options;
    options.format.tools = "hermit";
    const auto tools = make_output_parser(options);
    ASSERT_FALSE(tools);
    EXPECT_EQ(tools.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(tools.error().message.find("hermes, "), std::string::npos);
    options.format = {"", "thoughts"};
    const auto reasoning = make_output_parser(options);
    ASSERT_FALSE(reasoning);
    EXPECT_NE(reasoning.error().message.find("deepseek_r1, "), std::string::npos);
}

TEST(OutputEvents, JoinWhatBelongsTogether) {
    using Kind = OutputEvents::Kind;
    OutputEvents out;
    out.add(Kind::kContent, "a");
    out.add(Kind::kContent, "");
    out.add(Kind::kContent, "b");
    out.add(Kind::kToolBegin, "f", 0);
    out.add(Kind::kToolArguments, "{", 0);
    out.add(Kind::kToolArguments, "}", 0);
    out.add(Kind::kToolEnd, "", 0);
    out.add(Kind::kContent, "c");
    ASSERT_EQ(out.events.size(), 5U);
    EXPECT_EQ(out.of(out.events[0]), "ab");
    EXPECT_EQ(out.of(out.events[2]), "{}");
    EXPECT_EQ(out.of(out.events[4]), "c");
}

}  // namespace
}  // namespace stator::text
