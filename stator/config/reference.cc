#include "stator/config/reference.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "stator/config/value.h"

namespace stator::config {
namespace {

constexpr std::string_view kIntro =
    R"(<!-- Written by `stator config --markdown`; change stator/config/options.cc instead of this file. -->
# Configuration

Every option has a default and can be given in three ways. A later one wins over an earlier one:

1. in a YAML file, named by `stator serve --config FILE` or by the environment variable `STATOR_CONFIG`,
2. as an environment variable: the flag in upper case, `--log-level` is `STATOR_LOG_LEVEL`,
3. as a flag of `stator serve`.

```yaml
server:
  host: 0.0.0.0
  port: 8080
auth:
  api_key_file: /etc/stator/keys
limits:
  max_body_size: 8M
  idle_timeout: 30s
```

`stator config` prints the value of every option and where it comes from; `stator config check FILE` checks a file and
reports everything that is wrong in it, with line numbers. Unknown names are errors.

How values are written:

- A **duration** is a number with `ms`, `s`, `m` or `h`; a number alone is seconds.
- A **size** is a number of bytes, or a number with `K`, `M`, `G` or `T` (1024 each).
- A **list** is a YAML sequence, a flag given several times, or one text with commas.
- A flag whose value is true or false may stand alone (`--access-log`) or be denied (`--no-access-log`).
)";

/// A table cell may not contain a bar or a line end.
std::string cell(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '|') out += '\\';
        out += c == '\n' ? ' ' : c;
    }
    return out;
}

std::string default_cell(const Option& option) {
    const Value value = option.get(Settings{});
    const std::string text = default_text(option);
    if (std::holds_alternative<std::monostate>(value) || text == "none") return text;
    return fmt::format("`{}`", text);
}

std::string type_cell(const Option& option) {
    std::string text =
        option.type == OptionType::kChoice ? "" : std::string(to_string(option.type));
    if (!option.unit.empty()) text += fmt::format(", {}", option.unit);
    const std::string choices = option.type == OptionType::kBool ? "" : choices_text(option);
    if (!choices.empty()) text += text.empty() ? choices : fmt::format("; {}", choices);
    return text;
}

}  // namespace

std::string default_text(const Option& option) {
    std::string text = format_value(option, option.get(Settings{}));
    return text.empty() ? "none" : text;
}

std::string choices_text(const Option& option) {
    if (option.type == OptionType::kBool) return "true, false";
    if (option.type == OptionType::kChoice)
        return fmt::format("{}", fmt::join(option.choices, ", "));
    if (!std::isfinite(option.min) || !std::isfinite(option.max)) return {};
    return fmt::format("{}{} to {}", option.min_excluded ? "above " : "",
                       format_bound(option, option.min), format_bound(option, option.max));
}

std::string markdown_reference() {
    std::string out(kIntro);
    for (const Section& section : sections()) {
        fmt::format_to(std::back_inserter(out), "\n## {}: `{}`\n\n", section.title, section.name);
        if (!section.intro.empty()) out += fmt::format("{}\n\n", section.intro);
        out +=
            "| option | flag | environment | default | type | meaning "
            "|\n|---|---|---|---|---|---|\n";
        for (const Option& option : options()) {
            if (option.section() != section.name) continue;
            fmt::format_to(std::back_inserter(out), "| `{}` | `{}` | `{}` | {} | {} | {} |\n",
                           option.key, option.flag, option.environment(),
                           cell(default_cell(option)), cell(type_cell(option)),
                           cell(option.meaning));
        }
    }
    return out;
}

}  // namespace stator::config
