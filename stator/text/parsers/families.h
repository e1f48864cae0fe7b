#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "stator/text/parsers/output_parser.h"
#include "stator/text/parsers/reasoning.h"

namespace stator::text {

/// A notation of calls.
struct ToolFamily {
    std::string_view name;
    std::unique_ptr<OutputParser> (*make)(const OutputParserOptions& options) = nullptr;
    /// Marks that end thinking where it was not closed.
    std::vector<std::string_view> ends_thinking = {};
};

/// All there are, sorted as manuals show them.
[[nodiscard]] std::span<const ToolFamily> tool_families();
[[nodiscard]] std::span<const ReasoningFamily> reasoning_families();

[[nodiscard]] const ToolFamily* find_tool_family(std::string_view name);
[[nodiscard]] const ReasoningFamily* find_reasoning_family(std::string_view name);

}  // namespace stator::text
