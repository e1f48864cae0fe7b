#pragma once

#include <string>
#include <vector>

namespace stator::config {

/// Something wrong in what the program was told. `where` is what to look at: "stator.yaml:12",
/// "STATOR_PORT", "--port".
struct Problem {
    std::string where;
    std::string message;  ///< a sentence: which value, and what would be right

    bool operator==(const Problem&) const = default;
    [[nodiscard]] std::string text() const { return where + ": " + message; }
};
using Problems = std::vector<Problem>;

}  // namespace stator::config
