#include <array>
#include <string>

#include "stator/text/parsers/output_parser.h"

namespace stator::text {
namespace {

/// A family's mark in a chat template. The first that is there wins, so the marks that others
/// contain, or that several families share, come last.
struct Mark {
    std::string_view text;
    std::string_view format;
    std::string_view also = {};  ///< must be there too
};

constexpr std::array kToolMarks{
    Mark{"<|channel|>", "harmony", "<|message|>"},
    Mark{"<｜DSML｜", "deepseek_v3_2", "function_calls"},
    Mark{"<｜DSML｜", "deepseek_v4"},
    Mark{"｜DSML｜", "deepseek_v3_2"},
    Mark{"<｜tool▁calls▁begin｜>", "deepseek_v3", "```json"},
    Mark{"<｜tool▁calls▁begin｜>", "deepseek_v3_1"},
    Mark{"<|tool_calls_section_begin|>", "kimi_k2"},
    Mark{"<minimax:tool_call>", "minimax_m2"},
    Mark{"<seed:tool_call>", "seed_oss"},
    Mark{"<arg_key>", "glm45"},
    Mark{"<function=", "qwen3_coder", "<parameter="},
    Mark{"[TOOL_CALLS]", "mistral"},
    Mark{"<TOOLCALL>", "nemotron_nano"},
    Mark{"<tool_call|>", "gemma4"},
    Mark{"<start_function_call>", "functiongemma"},
    Mark{"<|tool_call_start|>", "lfm2"},
    Mark{"<|action_start|>", "internlm2"},
    Mark{"<|/tool_call|>", "phi4"},
    Mark{"<|/tool|>", "phi4"},
    Mark{"functools[", "phi4"},
    Mark{"<function_calls>", "olmo3"},
    Mark{"<tool_calls>", "jamba"},
    Mark{"<tool_call>", "hermes"},
    Mark{"<|tool_call|>", "granite"},
    Mark{"<|python_start|>", "pythonic"},
    Mark{"[func_name1(", "pythonic"},
    Mark{"<|python_tag|>", "llama3_json"},
    Mark{"\"parameters\": dictionary of argument name", "llama3_json"},
};

constexpr std::array kReasoningMarks{
    Mark{"<|channel|>", "gpt_oss", "<|message|>"},
    Mark{"<channel|>", "gemma4", "<|channel>"},
    Mark{"<seed:think>", "seed_oss"},
    Mark{"<mm:think>", "minimax_m3"},
    Mark{"[THINK]", "mistral"},
    Mark{"◁think▷", "kimi"},
    Mark{"Here is my thought process:", "granite"},
    Mark{"</think>", "minimax_m2", "<minimax:tool_call>"},
    Mark{"</think>", "kimi_k25", "<|tool_calls_section_begin|>"},
    Mark{"</think>", "glm45", "<arg_key>"},
    Mark{"</think>", "deepseek_v4", "｜DSML｜"},
    // V3.1 thinks when it is told to, R1 always does.
    Mark{"not thinking", "deepseek_v3_1", "<｜Assistant｜>"},
    Mark{"</think>", "deepseek_r1", "<｜Assistant｜>"},
    Mark{"</think>", "nemotron_nano", "<TOOLCALL>"},
    Mark{"</think>", "nemotron3", "truncate_history_thinking"},
    Mark{"</think>", "qwen3"},
};

template <std::size_t n>
std::string_view first_of(const std::array<Mark, n>& marks, std::string_view text) {
    for (const Mark& mark : marks) {
        if (text.contains(mark.text) && text.contains(mark.also)) return mark.format;
    }
    return {};
}

}  // namespace

OutputFormat detect_output_format(std::string_view chat_template) {
    OutputFormat format;
    format.tools = first_of(kToolMarks, chat_template);
    format.reasoning = first_of(kReasoningMarks, chat_template);
    return format;
}

}  // namespace stator::text
