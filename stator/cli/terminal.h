#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::cli {

/// Colours for one stream: empty texts where it is no terminal, or NO_COLOR or TERM=dumb say so.
struct Style {
    std::string_view bold;
    std::string_view dim;
    std::string_view red;
    std::string_view reset;
};
[[nodiscard]] Style plain_style();
[[nodiscard]] Style style_of(int descriptor);
[[nodiscard]] bool is_terminal(int descriptor);

/// Writes all of it to standard output, at once.
void print_out(std::string_view text);
/// Writes all of it to standard error.
void print_err(std::string_view text);

/// "stator: <sentence>" on standard error; a full stop is added where there is none.
void print_problem(std::string_view sentence);
void print_problem(const Error& error);

}  // namespace stator::cli
