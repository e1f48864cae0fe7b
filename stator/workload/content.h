#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/tokens/token.h"
#include "stator/workload/request_spec.h"

namespace stator::workload {

/// Token ids that made-up prompts consist of: [first, first + count). The default is the printable
/// ASCII characters, which are tokens of their own in byte vocabularies and in most byte-pair ones.
struct TokenRange {
    tokens::TokenId first = 33;
    std::uint32_t count = 94;
};

/// The number behind a content id and what makes it different: for kinds of workloads to name
/// their pieces by.
[[nodiscard]] std::uint64_t content_id(std::uint64_t kind, std::uint64_t a, std::uint64_t b = 0);

/// Appends the tokens of a segment. Segments with output_of are the caller's.
void append_tokens(std::vector<tokens::TokenId>& out, const Segment& segment, TokenRange range);

/// Appends `words` words of the content, separated and ended by blanks: common English words at
/// random. Fewer words are the beginning of more.
void append_words(std::string& out, std::uint64_t content, std::uint32_t words);

/// A small picture in PNG of this size, different for each content: coloured tiles.
[[nodiscard]] std::string make_png(const ImageSpec& image);

}  // namespace stator::workload
