#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "stator/config/options.h"
#include "stator/config/problem.h"

namespace stator::config {

constexpr std::size_t kMaxFileBytes = 1024 * 1024;

/// One option that a file sets.
struct FileEntry {
    const Option* option = nullptr;
    Value value;
    int line = 0;  ///< from 1
};

struct FileReading {
    std::vector<FileEntry> entries;  ///< what could be read, in the file's order
    Problems problems;               ///< everything that could not
};

/// Reads a configuration file: one level of sections, each with its options.
///
///     server:
///       port: 8080
///       cors_origins: [https://example.org]
///
/// Syntax errors, unknown and repeated names, wrong types and values out of range all become
/// problems with their line; reading goes on after each but a syntax error. Aliases are followed,
/// not expanded; text over kMaxFileBytes is refused. `name` is the file's name as it should stand
/// in the problems.
[[nodiscard]] FileReading read_yaml(std::string_view name, std::string_view text);

}  // namespace stator::config
