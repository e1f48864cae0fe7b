#include "stator/cli/terminal.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace stator::cli {

Style plain_style() { return {"", "", "", ""}; }

bool is_terminal(int descriptor) { return ::isatty(descriptor) == 1; }

Style style_of(int descriptor) {
    const char* no_color = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    const bool dumb = term == nullptr || std::string_view(term) == "dumb";
    if (!is_terminal(descriptor) || dumb || (no_color != nullptr && *no_color != '\0'))
        return plain_style();
    return {"\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"};
}

void print_out(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

void print_err(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

void print_problem(std::string_view sentence) {
    const Style style = style_of(STDERR_FILENO);
    std::string line;
    line += style.red;
    line += "stator:";
    line += style.reset;
    line += ' ';
    line += sentence;
    if (!sentence.ends_with('.') && !sentence.ends_with('?')) line += '.';
    line += '\n';
    print_err(line);
}

void print_problem(const Error& error) { print_problem(error.message); }

}  // namespace stator::cli
