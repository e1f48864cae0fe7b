#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/codec/json.h"
#include "stator/frontend/field_reader.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::frontend {

/// Bounds that no option moves.
inline constexpr std::size_t kMaxTools = 128;                ///< OpenAI's
inline constexpr std::size_t kMaxToolNameBytes = 64;         ///< OpenAI's
inline constexpr std::size_t kMaxToolBytes = 1024 * 1024;    ///< of all tools as JSON
inline constexpr std::size_t kMaxToolCallsInMessage = 1024;  ///< in a message of the history

/// One element of `tools`.
struct ToolSpec {
    std::string json;             ///< all of it, as the client gave it
    std::string parameters_json;  ///< the schema of its arguments; empty: it takes none
    text::ToolShape shape;        ///< its name, and its arguments' types for parsers
};

/// What a request says of tools: `tools`, `tool_choice`, `parallel_tool_calls`.
struct ToolUse {
    enum class Choice : std::uint8_t {
        kNone,      ///< the model shall not call any; also where there are no tools
        kAuto,      ///< it may
        kRequired,  ///< it must call at least one
        kNamed,     ///< it must call the one of this name
    };
    /// Those that may be called: without those that `allowed_tools` leaves out.
    std::vector<ToolSpec> tools;
    Choice choice = Choice::kNone;
    std::string named;
    bool parallel = true;  ///< several calls in one answer are welcome

    [[nodiscard]] bool forced() const {
        return choice == Choice::kRequired || choice == Choice::kNamed;
    }
};

/// 1 to 64 of [A-Za-z0-9_.-]: OpenAI's rule, and the dot that tool servers put into names.
[[nodiscard]] bool valid_tool_name(std::string_view name);

/// Reads and checks all of it; errors stay in `fields`, with paths such as
/// "tools[1].function.name". The legacy `functions` and `function_call` are refused with a hint.
void read_tool_use(FieldReader& fields, ToolUse& out);

}  // namespace stator::frontend
