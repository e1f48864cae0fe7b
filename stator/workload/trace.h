#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/workload/options.h"

namespace stator::workload {

/// A trace in memory: 24 bytes a request and 8 a block.
struct Trace {
    struct Request {
        double start_s = 0;  ///< since the first one
        std::uint32_t input_tokens = 0;
        std::uint32_t output_tokens = 0;
        std::uint32_t first_block = 0;  ///< of `blocks`
        std::uint32_t block_count = 0;
    };
    std::vector<Request> requests;  ///< by their start
    std::vector<std::uint64_t> blocks;
};
constexpr std::uint32_t kMooncakeBlockTokens = 512;

/// A line of a file of prompts.
struct Prompt {
    std::string text;
    std::string messages;             ///< a JSON array, instead of text
    std::uint32_t output_tokens = 0;  ///< 0: not said
};

/// What to do with lines that can't be read.
struct BadLines {
    bool skip = false;
    SkippedLines skipped;
};

/// JSON lines {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [ids]}, an id
/// for each 512 tokens of input. Source: the traces of Mooncake (FAST'25), README of the trace
/// release. Errors name the line.
[[nodiscard]] Result<Trace> read_mooncake(std::string_view text, BadLines& bad);

/// CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens and times such as
/// "2023-11-16 18:17:03.9799600". Source: Azure LLM inference traces 2023.
[[nodiscard]] Result<Trace> read_azure(std::string_view text, BadLines& bad);

/// One prompt a line: plain text, or JSON {"prompt": "…"} or {"messages": […]}, both perhaps with
/// "output_tokens". Empty lines count as none.
[[nodiscard]] Result<std::vector<Prompt>> read_prompts(std::string_view text, BadLines& bad);

}  // namespace stator::workload
