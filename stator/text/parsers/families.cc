#include "stator/text/parsers/families.h"

#include <algorithm>

#include "stator/text/parsers/gemma_calls.h"
#include "stator/text/parsers/harmony.h"
#include "stator/text/parsers/json_calls.h"
#include "stator/text/parsers/named_calls.h"
#include "stator/text/parsers/nested_calls.h"
#include "stator/text/parsers/python_calls.h"
#include "stator/text/parsers/tagged_calls.h"

namespace stator::text {
namespace {

using Made = std::unique_ptr<OutputParser>;
using Options = OutputParserOptions;

Made json(const JsonCallFamily& family) { return std::make_unique<JsonCalls>(family); }

Made hermes(const Options& /*options*/) {
    return json({.opens = {"<tool_call>"}, .closes = {"</tool_call>"}});
}

Made llama3_json(const Options& /*options*/) {
    return json({.opens = {"<|python_tag|>"}, .bare_object = true, .separators = ";,"});
}

Made granite(const Options& /*options*/) {
    return json({.opens = {"<|tool_call|>", "<tool_call>"},
                 .closes = {"</tool_call>"},
                 .bare_array = true});
}

Made internlm2(const Options& /*options*/) {
    return json({.opens = {"<|action_start|><|plugin|>"}, .closes = {"<|action_end|>"}});
}

Made jamba(const Options& /*options*/) {
    return json({.opens = {"<tool_calls>"}, .closes = {"</tool_calls>"}});
}

Made nemotron(const Options& /*options*/) {
    return json({.opens = {"<TOOLCALL>"}, .closes = {"</TOOLCALL>"}});
}

Made phi4(const Options& /*options*/) {
    return json({.opens = {"functools", "<|tool_call|>"}, .closes = {"<|/tool_call|>"}});
}

Made xlam(const Options& /*options*/) {
    return json({.opens = {"```json", "<tool_call>", "[TOOL_CALLS]"},
                 .closes = {"```", "</tool_call>"},
                 .bare_object = true,
                 .bare_array = true,
                 .needs_arguments = true});
}

Made any_json(const Options& /*options*/) {
    return json({.opens = {"<TOOLCALL>", "<|python_tag|>", "<tool_call>"},
                 .closes = {"</TOOLCALL>", "</tool_call>"},
                 .bare_object = true,
                 .bare_array = true,
                 .needs_arguments = true,
                 .separators = ";,"});
}

Made mistral(const Options& /*options*/) {
    return std::make_unique<NamedCalls>(NamedCallFamily{.call_open = "[TOOL_CALLS]",
                                                        .name_ends = {"[ARGS]", "[CALL_ID]", "{"},
                                                        .id_open = "[CALL_ID]",
                                                        .lists = true});
}

constexpr std::string_view kDeepSeekBegin = "<｜tool▁calls▁begin｜>";

Made deepseek_v3(const Options& /*options*/) {
    return std::make_unique<NamedCalls>(NamedCallFamily{.section_open = kDeepSeekBegin,
                                                        .section_close = "<｜tool▁calls▁end｜>",
                                                        .call_open = "<｜tool▁call▁begin｜>",
                                                        .kind_end = "<｜tool▁sep｜>",
                                                        .name_ends = {"\n", "```json", "{"},
                                                        .before_arguments = "```json",
                                                        .after_arguments = "```",
                                                        .call_close = "<｜tool▁call▁end｜>"});
}

Made deepseek_v3_1(const Options& /*options*/) {
    return std::make_unique<NamedCalls>(NamedCallFamily{.section_open = kDeepSeekBegin,
                                                        .section_close = "<｜tool▁calls▁end｜>",
                                                        .call_open = "<｜tool▁call▁begin｜>",
                                                        .name_ends = {"<｜tool▁sep｜>"},
                                                        .call_close = "<｜tool▁call▁end｜>"});
}

/// "functions.weather:0" is weather.
std::string_view kimi_name(std::string_view name) {
    constexpr std::string_view kFunctions = "functions.";
    if (name.starts_with(kFunctions)) name.remove_prefix(kFunctions.size());
    const std::size_t colon = name.rfind(':');
    const bool numbered = colon != std::string_view::npos && colon + 1 < name.size() &&
                          name.find_first_not_of("0123456789", colon + 1) == std::string_view::npos;
    return numbered ? name.substr(0, colon) : name;
}

Made kimi_k2(const Options& /*options*/) {
    return std::make_unique<NamedCalls>(
        NamedCallFamily{.section_open = "<|tool_calls_section_begin|>",
                        .section_close = "<|tool_calls_section_end|>",
                        .call_open = "<|tool_call_begin|>",
                        .name_ends = {"<|tool_call_argument_begin|>"},
                        .call_close = "<|tool_call_end|>",
                        .plain_name = kimi_name});
}

Made glm(const Options& options) {
    return std::make_unique<TaggedCalls>(
        TaggedCallFamily{.call_open = "<tool_call>",
                         .name_ends = {"\n"},
                         .name_stops = {"<arg_key>", "</tool_call>"},
                         .call_close = "</tool_call>",
                         .parameter_open = "<arg_key>",
                         .key_ends = {"</arg_key>"},
                         .value_open = "<arg_value>",
                         .value_closes = {"</arg_value>"}},
        options.tools);
}

/// <function=f><parameter=k>v</parameter></function> inside a section.
TaggedCallFamily functions_and_parameters(std::string_view open, std::string_view close) {
    return {.section_open = open,
            .section_close = close,
            .call_open = "<function=",
            .name_ends = {">"},
            .call_close = "</function>",
            .parameter_open = "<parameter=",
            .key_ends = {">"},
            .value_closes = {"\n</parameter>", "</parameter>"},
            .value_stops = {"\n<parameter=", "\n</function>\n</"},
            .calls_without_section = true,
            .line_break_first = true,
            .otherwise = ToolShape::Type::kString};
}

Made qwen3_coder(const Options& options) {
    return std::make_unique<TaggedCalls>(functions_and_parameters("<tool_call>", "</tool_call>"),
                                         options.tools);
}

Made seed_oss(const Options& options) {
    return std::make_unique<TaggedCalls>(
        functions_and_parameters("<seed:tool_call>", "</seed:tool_call>"), options.tools);
}

Made minimax_m2(const Options& options) {
    return std::make_unique<TaggedCalls>(
        TaggedCallFamily{.section_open = "<minimax:tool_call>",
                         .section_close = "</minimax:tool_call>",
                         .call_open = "<invoke name=\"",
                         .name_ends = {"\">"},
                         .call_close = "</invoke>",
                         .parameter_open = "<parameter name=\"",
                         .key_ends = {"\">"},
                         .value_closes = {"\n</parameter>", "</parameter>"},
                         .line_break_first = true,
                         .otherwise = ToolShape::Type::kString},
        options.tools);
}

Made minimax_m3(const Options& options) { return std::make_unique<NestedCalls>(options.tools); }

Made deepseek_dsml(const Options& options, std::string_view open, std::string_view close) {
    return std::make_unique<TaggedCalls>(
        TaggedCallFamily{.section_open = open,
                         .section_close = close,
                         .call_open = "<｜DSML｜invoke name=\"",
                         .name_ends = {"\">"},
                         .call_close = "</｜DSML｜invoke>",
                         .parameter_open = "<｜DSML｜parameter name=\"",
                         .key_ends = {"\" string=\"true\">", "\" string=\"false\">", "\">"},
                         .value_closes = {"</｜DSML｜parameter>"},
                         .first_key_end_is_text = true},
        options.tools);
}

Made deepseek_v3_2(const Options& options) {
    return deepseek_dsml(options, "<｜DSML｜function_calls>", "</｜DSML｜function_calls>");
}

Made deepseek_v4(const Options& options) {
    return deepseek_dsml(options, "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>");
}

Made python(const PythonCallFamily& family) { return std::make_unique<PythonCalls>(family); }

Made pythonic(const Options& /*options*/) {
    return python({.opens = {"<|python_start|>"}, .closes = {"<|python_end|>"}, .bare = true});
}

Made gemma(const Options& /*options*/) {
    return python({.opens = {"```tool_code"}, .closes = {"```"}, .bare = true, .lines = true});
}

Made lfm2(const Options& /*options*/) {
    return python({.opens = {"<|tool_call_start|>"}, .closes = {"<|tool_call_end|>"}});
}

Made olmo3(const Options& /*options*/) {
    return python({.opens = {"<function_calls>"}, .closes = {"</function_calls>"}, .lines = true});
}

Made gemma4(const Options& /*options*/) {
    return std::make_unique<GemmaCalls>(
        GemmaCallFamily{.open = "<|tool_call>", .close = "<tool_call|>", .quote = "<|\"|>"});
}

Made functiongemma(const Options& /*options*/) {
    return std::make_unique<GemmaCalls>(GemmaCallFamily{
        .open = "<start_function_call>", .close = "<end_function_call>", .quote = "<escape>"});
}

Made harmony(const Options& options) {
    return std::make_unique<Harmony>(options.begins_in_reasoning, nullptr);
}

}  // namespace

std::span<const ToolFamily> tool_families() {
    static const std::vector<ToolFamily> families{
        {"deepseek_v3", deepseek_v3, {kDeepSeekBegin}},
        {"deepseek_v3_1", deepseek_v3_1, {kDeepSeekBegin}},
        {"deepseek_v3_2", deepseek_v3_2, {"<｜DSML｜function_calls>"}},
        {"deepseek_v4", deepseek_v4, {"<｜DSML｜tool_calls>"}},
        {"default", any_json, {}},
        {"functiongemma", functiongemma, {}},
        {"gemma", gemma, {}},
        {"gemma4", gemma4, {"<|tool_call>"}},
        {"glm45", glm, {}},
        {"glm47", glm, {}},
        {"granite", granite, {}},
        {"harmony", harmony, {}},
        {"hermes", hermes, {}},
        {"internlm2", internlm2, {}},
        {"jamba", jamba, {}},
        {"kimi_k2", kimi_k2, {"<|tool_calls_section_begin|>"}},
        {"lfm2", lfm2, {}},
        {"llama3_json", llama3_json, {}},
        {"minimax_m2", minimax_m2, {"<minimax:tool_call>"}},
        {"minimax_m3", minimax_m3, {"]<]minimax[>[<tool_call>"}},
        {"mistral", mistral, {"[TOOL_CALLS]"}},
        {"nemotron_deci", nemotron, {}},
        {"nemotron_nano", nemotron, {}},
        {"olmo3", olmo3, {}},
        {"phi4", phi4, {}},
        {"pythonic", pythonic, {}},
        {"qwen3_coder", qwen3_coder, {"<tool_call>\n<function=", "<tool_call><function="}},
        {"seed_oss", seed_oss, {"<seed:tool_call>"}},
        {"xlam", xlam, {}},
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
        {.name = "gpt_oss",
         .opens = {"<|channel|>analysis<|message|>"},
         .closes = {"<|channel|>final<|message|>"}},
        {.name = "granite",
         .opens = {"Here is my thought process:", "Here's my thought process:"},
         .closes = {"Here is my response:", "Here's my response:"}},
        {.name = "kimi", .opens = {"◁think▷", "<think>"}, .closes = {"◁/think▷", "</think>"}},
        {.name = "kimi_k25", .opens = {"<think>"}, .closes = {"</think>"}},
        {.name = "minimax_m2", .opens = {"<think>"}, .closes = {"</think>"}, .always = true},
        {.name = "minimax_m3", .opens = {"<mm:think>"}, .closes = {"</mm:think>"}},
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
