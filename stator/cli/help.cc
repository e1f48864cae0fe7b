#include "stator/cli/help.h"

#include <fmt/format.h>

#include <algorithm>

#include "stator/config/options.h"
#include "stator/config/reference.h"

namespace stator::cli {
namespace {

constexpr std::size_t kLeft = 30;
constexpr std::size_t kWidth = 100;

std::string heading(std::string_view text, const Style& style) {
    return fmt::format("\n{}{}{}\n", style.bold, text, style.reset);
}

/// What stands after the flag: "NUMBER", "text|json", nothing for true and false.
std::string placeholder(const config::Option& option) {
    switch (option.type) {
        case config::OptionType::kBool:
            return "";
        case config::OptionType::kInt:
        case config::OptionType::kFloat:
            return " NUMBER";
        case config::OptionType::kDuration:
            return " TIME";
        case config::OptionType::kBytes:
            return " SIZE";
        case config::OptionType::kChoice:
            return option.choices.size() > 3 ? " WORD"
                                             : fmt::format(" {}", fmt::join(option.choices, "|"));
        case config::OptionType::kString:
        case config::OptionType::kList:
            break;
    }
    std::string name = option.unit.empty() ? "text" : std::string(option.unit);
    std::ranges::transform(name, name.begin(), [](char c) {
        return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    });
    return " " + name;
}

std::string option_entry(const config::Option& option) {
    std::string right(option.meaning);
    if (option.type == config::OptionType::kChoice && option.choices.size() > 3)
        right += fmt::format(" One of {}.", fmt::join(option.choices, ", "));
    if (option.type == config::OptionType::kList) right += " May be given several times.";
    std::string left(option.flag);
    if (option.type == config::OptionType::kBool) {
        const bool on = std::get<bool>(option.get(config::Settings{}));
        if (on) left = fmt::format("{0}, --no-{1}", option.flag, option.flag.substr(2));
        right += on ? " (default: yes)" : " (default: no)";
    } else if (const std::string value = config::default_text(option); value != "none") {
        right += fmt::format(" (default: {})", value);
    }
    return help_entry(left + placeholder(option), right);
}

}  // namespace

std::string help_entry(std::string_view left, std::string_view right) {
    std::string out = fmt::format("  {}", left);
    if (out.size() + 2 > kLeft) {
        out += '\n';
        out.append(kLeft, ' ');
    } else {
        out.append(kLeft - out.size(), ' ');
    }
    std::size_t column = kLeft;
    while (!right.empty()) {
        const auto blank = std::min(right.find(' '), right.size());
        const std::string_view word = right.substr(0, blank);
        right.remove_prefix(std::min(blank + 1, right.size()));
        if (column > kLeft && column + 1 + word.size() > kWidth) {
            out += '\n';
            out.append(kLeft, ' ');
            column = kLeft;
        }
        if (column > kLeft) {
            out += ' ';
            ++column;
        }
        out += word;
        column += word.size();
    }
    out += '\n';
    return out;
}

std::string overview(const std::vector<CommandSummary>& commands, const Style& style) {
    std::string out =
        fmt::format("{}stator{} serves large language models over an OpenAI-compatible HTTP API.\n",
                    style.bold, style.reset);
    out += heading("Commands", style);
    for (const CommandSummary& c : commands)
        out += help_entry(fmt::format("stator {}", c.name), c.does);
    out += heading("First steps", style);
    out += help_entry("stator serve", "start a server; it prints a curl line to try");
    out += help_entry("stator chat", "in a second terminal: talk to it");
    out += "\nstator COMMAND --help says more about each.\n";
    return out;
}

std::string serve_help(const Style& style) {
    std::string out =
        "stator serve: run a model behind an OpenAI-compatible HTTP API, until Ctrl-C.\n";
    out += heading("Examples", style);
    out +=
        "  stator serve --model my-model.gguf\n"
        "  stator serve --model my-model.gguf --host 0.0.0.0 --api-key-file keys.txt\n"
        "  stator serve --engine echo          no model needed: try the API\n";
    out +=
        "\nEvery option can be given as a flag, as an environment variable (--log-level is\n"
        "STATOR_LOG_LEVEL) or in a YAML file; `stator config` shows which values are in force.\n";
    out += heading("General", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--config FILE", "Read options from a YAML file. (else: $STATOR_CONFIG)");
    for (const config::Section& section : config::sections()) {
        out += heading(section.title, style);
        if (!section.intro.empty()) out += fmt::format("  {}\n", section.intro);
        for (const config::Option& option : config::options()) {
            if (option.section() == section.name) out += option_entry(option);
        }
    }
    return out;
}

std::string chat_help(const Style& style) {
    std::string out =
        "stator chat: talk to a running server from the terminal.\n\n"
        "With a prompt, or with text on standard input, it prints one answer and ends; otherwise "
        "it "
        "asks for\nyour messages one after the other.\n";
    out += heading("Examples", style);
    out +=
        "  stator chat\n"
        "  stator chat Why is the sky blue?\n"
        "  git diff | stator chat --system 'Summarise this change in one sentence.'\n";
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--url URL", "The server. (default: http://127.0.0.1:8000)");
    out += help_entry("--model NAME", "The model to ask. (default: the first one the server has)");
    out += help_entry("--system TEXT", "What the model should be told before the conversation.");
    out += help_entry("--temperature NUMBER", "0 to 2; 0 always takes the likeliest token.");
    out += help_entry("--max-tokens NUMBER", "Longest answer.");
    out += help_entry("--api-key KEY",
                      "For servers that ask for one. Better in the environment, where other users "
                      "don't see it: STATOR_API_KEY.");
    out += heading("While it runs", style);
    out += help_entry("/help", "the commands");
    out += help_entry("/reset", "forget the conversation");
    out += help_entry("/system TEXT", "change what the model is told, and begin anew");
    out += help_entry("/quit or Ctrl-D", "leave");
    out += help_entry("Ctrl-C", "stop the answer; once more: leave");
    out += help_entry("\\ at a line's end", "the message goes on in the next line");
    return out;
}

std::string config_help(const Style& style) {
    std::string out = "stator config: every option, its value, and where the value comes from.\n";
    out += heading("Usage", style);
    out += help_entry("stator config", "with flags as for `stator serve`: what it would use");
    out += help_entry("stator config check FILE", "report everything wrong in a YAML file");
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--json", "For programs.");
    out += help_entry("--markdown", "The reference manual, docs/configuration.md.");
    out += help_entry("--config FILE", "Read options from a YAML file. (else: $STATOR_CONFIG)");
    return out;
}

std::string version_help(const Style& style) {
    std::string out = "stator version: what this program was built from.\n";
    out += heading("Options", style);
    out += help_entry("-h, --help", "Show this text.");
    out += help_entry("--json", "For programs.");
    return out;
}

}  // namespace stator::cli
