#include "stator/frontend/output_plan.h"

#include <gtest/gtest.h>

#include "stator/frontend/scripted_engine.h"

namespace stator::frontend {
namespace {

using Choice = ToolUse::Choice;

ToolSpec tool(const std::string& name, const std::string& parameters = {}) {
    ToolSpec t;
    t.shape.name = name;
    t.parameters_json = parameters;
    return t;
}

ToolUse use(Choice choice, std::vector<ToolSpec> tools, std::string named = {}) {
    ToolUse out;
    out.choice = choice;
    out.tools = std::move(tools);
    out.named = std::move(named);
    return out;
}

ServedModel model(const std::string& tools, const std::string& reasoning,
                  bool structured_output = true) {
    ServedModel m;
    m.engine = std::make_shared<ScriptedEngine>(text::ByteTokenizer(), "", 1, structured_output);
    m.id = "m";
    m.format = {tools, reasoning};
    return m;
}

Result<std::shared_ptr<const OutputPlan>> plan(ToolUse tool_use, const ServedModel& m,
                                               bool in_reasoning = false) {
    ChatRequest request;
    request.tool_use = std::move(tool_use);
    return plan_output(request, m, in_reasoning);
}

TEST(OutputPlan, PlainOutputHasNone) {
    EXPECT_EQ(*plan({}, model("", "")), nullptr);
    EXPECT_EQ(*plan({}, model("hermes", "")), nullptr);
    // tool_choice none: what looks like a call is text.
    EXPECT_EQ(*plan(use(Choice::kNone, {tool("f")}), model("hermes", "")), nullptr);
}

TEST(OutputPlan, ThinkingIsReadWithoutTools) {
    const auto p = *plan({}, model("hermes", "qwen3"), true);
    ASSERT_NE(p, nullptr);
    EXPECT_FALSE(p->tools);
    EXPECT_EQ(p->parser.format, (text::OutputFormat{"", "qwen3"}));
    EXPECT_TRUE(p->parser.begins_in_reasoning);
    EXPECT_EQ(p->constraint, nullptr);
}

TEST(OutputPlan, CallsThatMayCome) {
    const auto p = *plan(use(Choice::kAuto, {tool("f")}), model("hermes", ""));
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(p->tools);
    EXPECT_FALSE(p->first_call_only || p->parser.forced);
    ASSERT_EQ(p->parser.tools.size(), 1U);
    EXPECT_EQ(p->parser.tools[0].name, "f");
    ToolUse one = use(Choice::kAuto, {tool("f")});
    one.parallel = false;
    EXPECT_TRUE((*plan(one, model("hermes", "")))->first_call_only);
}

TEST(OutputPlan, WhatAModelCannotDoIsSaid) {
    const auto no_format = plan(use(Choice::kAuto, {tool("f")}), model("", ""));
    ASSERT_FALSE(no_format);
    EXPECT_EQ(no_format.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(no_format.error().param, "tools");
    EXPECT_TRUE(plan(use(Choice::kRequired, {tool("f")}), model("", "")));
    const ServedModel free = model("hermes", "", false);
    const auto forced = plan(use(Choice::kRequired, {tool("f")}), free);
    ASSERT_FALSE(forced);
    EXPECT_EQ(forced.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(forced.error().param, "tool_choice");
    EXPECT_TRUE(plan(use(Choice::kAuto, {tool("f")}), free));
}

TEST(OutputPlan, ForcedCallsComeAfterThinking) {
    for (const bool thinking : {false, true}) {
        const auto p =
            *plan(use(Choice::kNamed, {tool("f")}, "f"), model("hermes", "qwen3"), thinking);
        ASSERT_NE(p, nullptr);
        EXPECT_TRUE(p->parser.forced);
        EXPECT_EQ(p->parser.forced_name, "f");
        ASSERT_NE(p->constraint, nullptr);
        EXPECT_EQ(p->constraint->kind, protocol::OutputConstraint::Kind::kJsonSchema);
        EXPECT_EQ(p->constraint->after, thinking ? "</think>" : "");
    }
}

TEST(OutputPlan, SchemaOfANamedCall) {
    EXPECT_EQ(forced_call_schema(use(Choice::kNamed, {tool("e"), tool("f")}, "f")),
              R"({"type":"object","properties":{},"additionalProperties":false})");
    const std::string schema =
        R"({"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":{"type":"null"}}})";
    EXPECT_EQ(forced_call_schema(use(Choice::kNamed, {tool("f", schema)}, "f")), schema);
    EXPECT_EQ(forced_call_schema(use(Choice::kNamed, {tool("f", R"({"properties":{}})")}, "f")),
              R"({"type":"object","properties":{}})");
}

TEST(OutputPlan, SchemaOfRequiredCalls) {
    const std::string schema =
        R"({"type":"object","properties":{"$ref":{"$ref":"#"},"b":[{"$ref":"#/$defs/B"},)"
        R"({"$ref":"other.json#/x"},{"enum":["#"]}]},"$defs":{"B":true}})";
    ToolUse two = use(Choice::kRequired, {tool("f"), tool("g", schema)});
    const auto item = [](const std::string& name, const std::string& at) {
        return R"({"type":"object","properties":{"name":{"const":")" + name +
               R"("},"parameters":{"$ref":"#/$defs/)" + at +
               R"("}},"required":["name","parameters"],"additionalProperties":false})";
    };
    const std::string rest =
        R"("items":{"anyOf":[)" + item("f", "tool0") + "," + item("g", "tool1") +
        R"(]},"$defs":{"tool0":{"type":"object","properties":{},"additionalProperties":false},)"
        R"("tool1":{"type":"object","properties":{"$ref":{"$ref":"#/$defs/tool1"},"b":[)"
        R"({"$ref":"#/$defs/tool1/$defs/B"},{"$ref":"other.json#/x"},{"enum":["#"]}]},)"
        R"("$defs":{"B":true}}}})";
    EXPECT_EQ(forced_call_schema(two), R"({"type":"array","minItems":1,)" + rest);
    two.parallel = false;
    EXPECT_EQ(forced_call_schema(two), R"({"type":"array","minItems":1,"maxItems":1,)" + rest);
}

}  // namespace
}  // namespace stator::frontend
