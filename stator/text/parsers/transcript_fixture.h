#pragma once

#include <string>
#include <vector>

#include "stator/text/parsers/parsed_output_fixture.h"

namespace stator::text {

/// An output, and what is in it.
struct Transcript {
    std::string name;  ///< file and case
    OutputParserOptions options;
    std::string text;
    ParsedOutput expected;  ///< without events
};

/// All of test/transcripts/parsers, which STATOR_PARSER_TRANSCRIPTS names. A file gives its options
/// once; a case may change them.
[[nodiscard]] std::vector<Transcript> read_transcripts();

}  // namespace stator::text
