#include "stator/text/parsers/output_parser.h"

namespace stator::text {

OutputFormat detect_output_format(std::string_view t) {
    OutputFormat format;
    if (t.contains("<tool_call>")) format.tools = "hermes";
    if (t.contains("</think>")) format.reasoning = "qwen3";
    return format;
}

}  // namespace stator::text
