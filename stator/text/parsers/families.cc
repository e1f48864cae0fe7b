#include "stator/text/parsers/families.h"

#include <algorithm>

#include "stator/text/parsers/json_calls.h"

namespace stator::text {
namespace {

using Made = std::unique_ptr<OutputParser>;
using Options = OutputParserOptions;

Made hermes(const Options& /*options*/) {
    return std::make_unique<JsonCalls>(
        JsonCallFamily{.opens = {"<tool_call>"}, .closes = {"</tool_call>"}});
}

Made llama3_json(const Options& /*options*/) {
    return std::make_unique<JsonCalls>(
        JsonCallFamily{.opens = {"<|python_tag|>"}, .bare_object = true, .separators = ";,"});
}

}  // namespace

std::span<const ToolFamily> tool_families() {
    static const std::vector<ToolFamily> families{
        {"hermes", hermes, {}},
        {"llama3_json", llama3_json, {}},
    };
    return families;
}

std::span<const ReasoningFamily> reasoning_families() {
    static const std::vector<ReasoningFamily> families{
        {.name = "basic", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "deepseek_r1", .opens = {"<think>"}, .closes = {"</think>"}, .always = true},
        {.name = "deepseek_v3_1", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "deepseek_v4", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "gemma4", .opens = {"<|channel>"}, .closes = {"<channel|>"}, .label = "thought\n"},
        {.name = "glm45", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "granite",
         .opens = {"Here is my thought process:", "Here's my thought process:"},
         .closes = {"Here is my response:", "Here's my response:"}},
        {.name = "kimi", .opens = {"◁think▷", "<think>"}, .closes = {"◁/think▷", "</think>"}},
        {.name = "kimi_k25", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "minimax_m2", .opens = {"<think>"}, .closes = {"</think>"}, .always = true},
        {.name = "mistral", .opens = {"[THINK]"}, .closes = {"[/THINK]"}},
        {.name = "nemotron3", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "nemotron_deci", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "nemotron_nano", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "qwen3", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "seed_oss", .opens = {"<seed:think>"}, .closes = {"</seed:think>"}},
        {.name = "step3", .opens = {"<think>"}, .closes = {"</think>"}, .always = true},
    };
    return families;
}

const ToolFamily* find_tool_family(std::string_view name) {
    const auto all = tool_families();
    const auto it = std::ranges::find(all, name, &ToolFamily::name);
    return it == all.end() ? nullptr : &*it;
}

const ReasoningFamily* find_reasoning_family(std::string_view name) {
    const auto all = reasoning_families();
    const auto it = std::ranges::find(all, name, &ReasoningFamily::name);
    return it == all.end() ? nullptr : &*it;
}

}  // namespace stator::text
