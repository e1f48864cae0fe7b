#include "stator/frontend/choice_output.h"

#include <gtest/gtest.h>

#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

/// The events as text: "c:…" content, "r:…" thinking, "b0:…" and "a0:…" calls.
std::string shown(const text::OutputEvents& events) {
    using Kind = text::OutputEvents::Kind;
    std::string out;
    for (const auto& e : events.events) {
        const std::string text(events.of(e));
        if (!out.empty()) out += " ";
        if (e.kind == Kind::kContent) out += "c:" + text;
        if (e.kind == Kind::kReasoning) out += "r:" + text;
        if (e.kind == Kind::kToolBegin) out += "b" + std::to_string(e.tool) + ":" + text;
        if (e.kind == Kind::kToolArguments) out += "a" + std::to_string(e.tool) + ":" + text;
    }
    return out;
}

OutputPlan plan(const std::string& tools, const std::string& reasoning) {
    OutputPlan p;
    p.tools = !tools.empty();
    p.parser.format = {tools, reasoning};
    p.parser.tools = {{"f", {}}, {"g", {}}};
    return p;
}

/// All of `output`, a byte a token.
std::string read(ChoiceOutput& choice, const std::string& output) {
    text::OutputEvents events;
    for (const char c : output) choice.push(std::string(1, c), events);
    choice.finish({}, events);
    return shown(events);
}

ChoiceOutput make(const OutputPlan& p) {
    auto made = ChoiceOutput::make(p);
    EXPECT_TRUE(made) << (made ? "" : made.error().message);
    return std::move(*made);
}

constexpr const char* kTwoCalls =
    "Well.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n"
    "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";

TEST(ChoiceOutput, KeepsTheCalls) {
    const OutputPlan p = plan("hermes", "");
    ChoiceOutput choice = make(p);
    const std::string seen = read(choice, kTwoCalls);
    EXPECT_TRUE(seen.starts_with("c:Well.")) << seen;
    EXPECT_TRUE(seen.ends_with("b0:f a0:{\"a\": 1} b1:g a1:{}")) << seen;
    ASSERT_EQ(choice.calls().size(), 2U);
    EXPECT_EQ(choice.calls()[0].name, "f");
    EXPECT_EQ(choice.calls()[0].arguments, "{\"a\": 1}");
    EXPECT_TRUE(choice.calls()[0].complete && choice.calls()[1].complete);
    EXPECT_FALSE(choice.complete());
    EXPECT_EQ(choice.reasoning_tokens(), 0U);
}

TEST(ChoiceOutput, NothingFollowsTheOneCallThatIsWanted) {
    OutputPlan p = plan("hermes", "");
    p.first_call_only = true;
    ChoiceOutput choice = make(p);
    const std::string seen = read(choice, kTwoCalls);
    EXPECT_TRUE(seen.ends_with("b0:f a0:{\"a\": 1}")) << seen;
    EXPECT_TRUE(choice.complete());
    EXPECT_EQ(choice.calls().size(), 1U);
}

TEST(ChoiceOutput, CutOffCallsAreNotComplete) {
    const OutputPlan p = plan("hermes", "");
    ChoiceOutput choice = make(p);
    EXPECT_EQ(read(choice, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"xy"),
              "b0:f a0:{\"a\": \"xy");
    ASSERT_EQ(choice.calls().size(), 1U);
    EXPECT_FALSE(choice.calls()[0].complete);
    EXPECT_FALSE(valid_arguments(choice.calls()[0].arguments));
    EXPECT_FALSE(valid_arguments("[]"));
    EXPECT_TRUE(valid_arguments("{}"));
}

TEST(ChoiceOutput, ThinkingIsCountedAndLeftOutWhereUnwanted) {
    OutputPlan p = plan("", "qwen3");
    p.parser.begins_in_reasoning = true;
    ChoiceOutput with = make(p);
    EXPECT_EQ(read(with, "hm</think>Yes"), "r:hm c:Yes");
    EXPECT_EQ(with.reasoning_tokens(), 10U);  // its mark, too
    p.include_reasoning = false;
    ChoiceOutput without = make(p);
    EXPECT_EQ(read(without, "hm</think>Yes"), "c:Yes");
    EXPECT_EQ(without.reasoning_tokens(), 10U);
}

TEST(ChoiceOutput, ForcedCalls) {
    OutputPlan p = plan("", "");
    p.tools = true;
    p.parser.forced = true;
    ChoiceOutput required = make(p);
    EXPECT_EQ(read(required, R"([{"name": "g", "parameters": {"x": 2}}])"), "b0:g a0:{\"x\": 2}");
    p.parser.forced_name = "f";
    ChoiceOutput named = make(p);
    EXPECT_EQ(read(named, R"({"x": 2})"), "b0:f a0:{\"x\": 2}");
    EXPECT_TRUE(named.calls()[0].complete);
}

TEST(ChoiceOutput, UnknownFormatsAreErrors) {
    EXPECT_FALSE(ChoiceOutput::make(plan("no such", "")));
}

}  // namespace
}  // namespace stator::frontend
