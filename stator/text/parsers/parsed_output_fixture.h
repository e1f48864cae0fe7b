#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/output_parser.h"

namespace stator::text {

/// What a parser made of a whole output.
struct ParsedOutput {
    struct Call {
        std::string name;
        std::string arguments;
        bool complete = false;
        bool operator==(const Call&) const = default;
    };
    std::string content;
    std::string reasoning;
    std::vector<Call> calls;
    /// All events in order, those that join joined: "content:…", "begin 0:…".
    std::vector<std::string> events;
    bool operator==(const ParsedOutput&) const = default;
};

/// Pushes the pieces, in order, and finishes.
[[nodiscard]] ParsedOutput parse_pieces(const OutputParserOptions& options,
                                        const std::vector<std::string_view>& pieces);
[[nodiscard]] ParsedOutput parse_whole(const OutputParserOptions& options, std::string_view text);

/// Pieces of about `size` bytes, cut between characters.
[[nodiscard]] std::vector<std::string_view> cut_evenly(std::string_view text, std::size_t size);

/// The next place at or behind `at` where a character begins.
[[nodiscard]] std::size_t character_border(std::string_view text, std::size_t at);

}  // namespace stator::text
