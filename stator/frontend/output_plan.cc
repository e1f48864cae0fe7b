#include "stator/frontend/output_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "stator/base/check.h"
#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

using codec::JsonType;
using codec::JsonView;
using codec::JsonWriter;

constexpr std::string_view kNoArguments =
    R"({"type":"object","properties":{},"additionalProperties":false})";

/// A schema again, whose references to its own parts ("#/$defs/x") begin with `root` instead of
/// "#". Depth is bounded by the parser.
// NOLINTNEXTLINE(misc-no-recursion)
void append_moved(JsonWriter& w, JsonView v, std::string_view root) {
    if (v.type() == JsonType::kArray) {
        w.begin_array();
        v.each_element([&](std::size_t, JsonView e) {
            append_moved(w, e, root);
            return true;
        });
        w.end_array();
        return;
    }
    if (v.type() != JsonType::kObject) {
        std::string plain;
        v.write_to(plain);
        w.raw(plain);
        return;
    }
    w.begin_object();
    v.each_member([&](std::string_view key, JsonView member) {
        w.key(key);
        const auto text = member.as_string();
        if (key == "$ref" && text && text->starts_with('#')) {
            w.string(std::string(root) + std::string(text->substr(1)));
        } else {
            append_moved(w, member, root);
        }
        return true;
    });
    w.end_object();
}

/// The schema of a tool's arguments, moved to `root`, and of an object whatever it says itself.
void append_parameters(JsonWriter& w, const ToolSpec& tool, std::string_view root) {
    if (tool.parameters_json.empty()) {
        w.raw(kNoArguments);
        return;
    }
    codec::JsonDocument document;
    const auto schema = document.parse(tool.parameters_json);
    STATOR_CHECK(schema.has_value(), "a schema that was read can be read again");
    std::string out;
    JsonWriter own(out);
    append_moved(own, *schema, root);
    if (schema->find("type").is_null()) out.insert(1, R"("type":"object",)");
    w.raw(out);
}

std::shared_ptr<const protocol::OutputConstraint> forced(const ToolUse& tool_use,
                                                         std::string_view after) {
    auto out = std::make_shared<protocol::OutputConstraint>();
    out->kind = protocol::OutputConstraint::Kind::kJsonSchema;
    out->text = forced_call_schema(tool_use);
    out->after = after;
    return out;
}

tl::unexpected<Error> cannot(std::string_view param, ErrorFormat format, std::string_view model) {
    auto e = error(ErrorCode::kUnsupported, format, model);
    e.value().param = param;
    return e;
}

}  // namespace

std::string forced_call_schema(const ToolUse& tool_use) {
    std::string out;
    JsonWriter w(out);
    if (tool_use.choice == ToolUse::Choice::kNamed) {
        const auto named = std::ranges::find_if(
            tool_use.tools, [&](const ToolSpec& t) { return t.shape.name == tool_use.named; });
        STATOR_CHECK(named != tool_use.tools.end(), "a named tool is one of the tools");
        append_parameters(w, *named, "#");
        return out;
    }
    w.begin_object().key("type").string("array").key("minItems").number(1);
    if (!tool_use.parallel) w.key("maxItems").number(1);
    w.key("items").begin_object().key("anyOf").begin_array();
    for (std::size_t i = 0; i < tool_use.tools.size(); ++i) {
        w.begin_object().key("type").string("object").key("properties").begin_object();
        w.key("name").begin_object().key("const").string(tool_use.tools[i].shape.name);
        w.end_object().key("parameters").begin_object();
        w.key("$ref").string(fmt::format("#/$defs/tool{}", i)).end_object().end_object();
        w.key("required").begin_array().string("name").string("parameters").end_array();
        w.key("additionalProperties").boolean(false).end_object();
    }
    w.end_array().end_object().key("$defs").begin_object();
    for (std::size_t i = 0; i < tool_use.tools.size(); ++i) {
        const std::string name = fmt::format("tool{}", i);
        w.key(name);
        append_parameters(w, tool_use.tools[i], "#/$defs/" + name);
    }
    w.end_object().end_object();
    return out;
}

Result<std::shared_ptr<const OutputPlan>> plan_output(const ChatRequest& request,
                                                      const ServedModel& model, bool in_reasoning) {
    const ToolUse& use = request.tool_use;
    const bool tools = use.choice != ToolUse::Choice::kNone;
    if (!tools && model.format.reasoning.empty()) return std::shared_ptr<const OutputPlan>();
    if (use.forced() && !model.engine->info().structured_output) {
        return cannot("tool_choice",
                      "the engine of the model \"{}\" can't be held to a form of output, so no "
                      "call can be forced; use \"auto\"",
                      model.id);
    }
    if (tools && !use.forced() && model.format.tools.empty()) {
        return cannot("tools",
                      "it is not known how the model \"{}\" writes calls of tools, so it can't be "
                      "left to it whether it calls one: force a call by tool_choice, or have the "
                      "server started with --tool-parser",
                      model.id);
    }
    auto plan = std::make_shared<OutputPlan>();
    plan->tools = tools;
    plan->include_reasoning = request.include_reasoning;
    plan->first_call_only = tools && !use.forced() && !use.parallel;
    text::OutputParserOptions& parser = plan->parser;
    parser.format.reasoning = model.format.reasoning;
    parser.begins_in_reasoning = in_reasoning;
    if (tools) {
        parser.format.tools = model.format.tools;
        for (const ToolSpec& tool : use.tools) parser.tools.push_back(tool.shape);
    }
    if (use.forced()) {
        parser.forced = true;
        parser.forced_name = use.named;
        plan->constraint =
            forced(use, in_reasoning ? text::reasoning_end_mark(model.format.reasoning) : "");
    }
    return std::shared_ptr<const OutputPlan>(std::move(plan));
}

}  // namespace stator::frontend
