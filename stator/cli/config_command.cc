#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <variant>

#include "stator/cli/command_line.h"
#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/settings_source.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/cli/transfer_setup.h"
#include "stator/codec/json_writer.h"
#include "stator/config/reference.h"
#include "stator/config/value.h"
#include "stator/config/yaml_file.h"
#include "stator/metrics/registry.h"
#include "stator/transfer/transfer.h"

namespace stator::cli {
namespace {

using codec::JsonWriter;

void write_value(JsonWriter& w, const config::Option& option, const config::Value& value) {
    struct Writer {
        JsonWriter& w;
        const config::Option& option;
        void operator()(std::monostate) const { w.null(); }
        void operator()(bool b) const { w.boolean(b); }
        void operator()(std::int64_t i) const { w.number(i); }
        void operator()(double d) const { w.number(d); }
        void operator()(const std::string& s) const { w.string(s); }
        void operator()(std::chrono::milliseconds t) const {
            w.number(static_cast<std::int64_t>(t.count()));
        }
        void operator()(config::ByteSize b) const { w.number(b.bytes); }
        void operator()(config::Choice c) const { w.string(option.choices[c.index]); }
        void operator()(const std::vector<std::string>& list) const {
            w.begin_array();
            for (const std::string& s : list) w.string(s);
            w.end_array();
        }
    };
    std::visit(Writer{w, option}, value);
}

/// The unit in which JSON gives the value.
std::string_view json_unit(const config::Option& option) {
    if (option.type == config::OptionType::kDuration) return "ms";
    if (option.type == config::OptionType::kBytes) return "bytes";
    return option.unit;
}

std::string as_json(const config::Loaded& loaded) {
    std::string out;
    JsonWriter w(out);
    w.begin_array();
    for (const config::Option& option : config::options()) {
        w.begin_object().key("key").string(option.key).key("flag").string(option.flag);
        w.key("environment").string(option.environment());
        w.key("type").string(config::to_string(option.type)).key("unit").string(json_unit(option));
        w.key("value");
        write_value(w, option, option.get(loaded.settings));
        w.key("default");
        write_value(w, option, option.get(config::Settings{}));
        w.key("source").string(config::to_string(loaded.origins[config::index_of(option)]));
        w.key("meaning").string(option.meaning).end_object();
    }
    w.end_array();
    out += '\n';
    return out;
}

std::string as_text(const config::Loaded& loaded, const Style& style) {
    std::string out;
    for (const config::Section& section : config::sections()) {
        fmt::format_to(std::back_inserter(out), "{}{}{}{}\n", out.empty() ? "" : "\n", style.bold,
                       section.title, style.reset);
        for (const config::Option& option : config::options()) {
            if (option.section() != section.name) continue;
            const config::Value value = option.get(loaded.settings);
            std::string text = config::format_value(option, value);
            if (text.empty()) text = "none";
            const config::Origin& origin = loaded.origins[config::index_of(option)];
            const bool changed = origin.source != config::Source::kDefault;
            const std::string_view unit =
                std::holds_alternative<std::int64_t>(value) ? option.unit : "";
            const std::string left =
                fmt::format("{} = {}{}{}", option.key, text, unit.empty() ? "" : " ", unit);
            const std::string from = changed ? fmt::format("from {}; default {}", origin.place,
                                                           config::default_text(option))
                                             : "default";
            fmt::format_to(std::back_inserter(out), "  {}{:<46}{}  {}({}){}\n",
                           changed ? style.bold : "", left, changed ? style.reset : "", style.dim,
                           from, style.reset);
            fmt::format_to(std::back_inserter(out), "      {}{}: {}{}\n", style.dim, option.flag,
                           option.meaning, style.reset);
        }
    }
    return out;
}

/// Whether handoffs could travel as the settings say, which depends on the machine.
std::string ways_of_handoffs(const config::Settings& settings) {
    const auto options = transfer_options(
        settings, {.kind = net::SocketAddress::Kind::kUnix, .host = {}, .path = {}}, nullptr);
    if (!options) return fmt::format("\nHandoffs: {}\n", options.error().message);
    metrics::Registry registry;
    const auto plane = transfer::start_transfer(*options, registry);
    if (!plane) return fmt::format("\nHandoffs: {}\n", plane.error().message);
    std::string out =
        fmt::format("\nHandoffs can travel here by {}.\n", fmt::join((*plane)->methods(), ", "));
    for (const auto& [method, why] : (*plane)->why_off()) {
        out += fmt::format("Not by {}: {}.\n", method, why);
    }
    (*plane)->stop();
    return out;
}

ExitCode check_file(const std::string& path) {
    const auto text = read_text_file("The configuration file", path, config::kMaxFileBytes);
    if (!text) {
        print_problem(text.error());
        return ExitCode::kUsage;
    }
    config::Inputs inputs;
    inputs.file = {path, *text};
    const auto loaded = config::load(inputs);
    if (loaded) {
        const auto set = std::ranges::count_if(loaded->origins, [](const config::Origin& o) {
            return o.source != config::Source::kDefault;
        });
        print_out(
            fmt::format("{} is right; it sets {} option{}.\n", path, set, set == 1 ? "" : "s"));
        return ExitCode::kDone;
    }
    for (const config::Problem& p : loaded.error()) print_err(p.text() + "\n");
    const std::size_t count = loaded.error().size();
    print_problem(fmt::format("{} has {} problem{}.", path, count, count == 1 ? "" : "s"));
    return ExitCode::kUsage;
}

}  // namespace

ExitCode run_config(const Invocation& invocation) {
    CommandLine line("stator config");
    bool json = false;
    bool markdown = false;
    std::string path;
    std::vector<std::string> words;
    std::vector<config::FlagValue> flags;
    line.add_switch("--json", json);
    line.add_switch("--markdown", markdown);
    line.add_value("--config", path);
    line.add_words(words);
    line.add_options(flags);
    const auto outcome = line.parse(invocation.args);
    if (!outcome) {
        print_problem(outcome.error());
        return ExitCode::kUsage;
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(config_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    if (words.size() == 2 && words.front() == "check") return check_file(words.back());
    if (!words.empty()) {
        print_problem(words.front() == "check"
                          ? std::string("Say which file: stator config check FILE.")
                          : "stator config knows check FILE, but not " +
                                config::in_quotes(words.front()) + ".");
        return ExitCode::kUsage;
    }
    if (markdown) {
        print_out(config::markdown_reference());
        return ExitCode::kDone;
    }
    const auto loaded = load_settings(path, std::move(flags));
    if (!loaded) return ExitCode::kUsage;
    print_out(json
                  ? as_json(*loaded)
                  : as_text(*loaded, style_of(STDOUT_FILENO)) + ways_of_handoffs(loaded->settings));
    return ExitCode::kDone;
}

}  // namespace stator::cli
