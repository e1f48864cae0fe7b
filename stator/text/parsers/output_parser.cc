#include "stator/text/parsers/output_parser.h"

#include <utility>

#include "stator/text/parsers/families.h"
#include "stator/text/parsers/forced_calls.h"
#include "stator/text/parsers/harmony.h"
#include "stator/text/parsers/marks.h"

namespace stator::text {
namespace {

std::string joined(const std::vector<std::string_view>& names) {
    std::string all;
    for (const std::string_view name : names) {
        if (!all.empty()) all.append(", ");
        all.append(name);
    }
    return all;
}

}  // namespace

Result<std::unique_ptr<OutputParser>> make_output_parser(OutputParserOptions options) {
    const OutputFormat& format = options.format;
    const ToolFamily* tools = format.tools.empty() ? nullptr : find_tool_family(format.tools);
    if (tools == nullptr && !format.tools.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "\"{}\" is no notation of tool calls; there are: {}", format.tools,
                     joined(tool_formats()));
    }
    const ReasoningFamily* reasoning =
        format.reasoning.empty() ? nullptr : find_reasoning_family(format.reasoning);
    if (reasoning == nullptr && !format.reasoning.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "\"{}\" is no notation of thinking; there are: {}", format.reasoning,
                     joined(reasoning_formats()));
    }
    std::unique_ptr<OutputParser> parser;
    if (format.tools == "harmony" || format.reasoning == "gpt_oss") {
        // Thinking, calls and content are messages of one notation here.
        if (options.forced) parser = std::make_unique<ForcedCalls>(options.forced_name);
        return std::make_unique<Harmony>(options.begins_in_reasoning, std::move(parser));
    }
    if (options.forced) {
        parser = std::make_unique<ForcedCalls>(options.forced_name);
    } else if (tools != nullptr) {
        parser = tools->make(options);
    } else {
        parser = std::make_unique<ContentParser>();
    }
    if (reasoning != nullptr) {
        std::vector<std::string_view> ends;
        if (tools != nullptr && !options.forced) ends = tools->ends_thinking;
        // A grammar may force the calls at once, even of a model that thinks otherwise.
        const bool inside = options.begins_in_reasoning || (reasoning->always && !options.forced);
        parser = std::make_unique<ReasoningParser>(*reasoning, std::move(ends), inside,
                                                   std::move(parser));
    }
    return parser;
}

bool ends_in_reasoning(std::string_view reasoning_format, std::string_view prompt) {
    const ReasoningFamily* family = find_reasoning_family(reasoning_format);
    if (family == nullptr) return false;
    prompt = trimmed(prompt);
    if (family->always) {
        for (const std::string_view mark : family->closes) {
            if (prompt.ends_with(mark)) return false;
        }
        return true;
    }
    if (!family->label.empty()) {
        const std::string_view label = trimmed(family->label);
        if (prompt.ends_with(label))
            prompt = trimmed(prompt.substr(0, prompt.size() - label.size()));
    }
    for (const std::string_view mark : family->opens) {
        if (prompt.ends_with(mark)) return true;
    }
    return false;
}

std::string_view reasoning_end_mark(std::string_view reasoning_format) {
    const ReasoningFamily* family = find_reasoning_family(reasoning_format);
    return family == nullptr || family->closes.empty() ? std::string_view()
                                                       : family->closes.front();
}

std::vector<std::string_view> tool_formats() {
    std::vector<std::string_view> names;
    for (const ToolFamily& family : tool_families()) names.push_back(family.name);
    return names;
}

std::vector<std::string_view> reasoning_formats() {
    std::vector<std::string_view> names;
    for (const ReasoningFamily& family : reasoning_families()) names.push_back(family.name);
    return names;
}

}  // namespace stator::text
