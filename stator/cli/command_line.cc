#include "stator/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <deque>
#include <functional>
#include <utility>

#include "stator/config/suggest.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

/// "--access-log" → "--no-access-log"
std::string denial(std::string_view flag) { return "--no-" + std::string(flag.substr(2)); }

}  // namespace

struct CommandLine::Impl {
    explicit Impl(std::string name) : command(std::move(name)), app("", command) {
        app.set_help_flag();
        app.allow_extras();
        names.emplace_back("--help");
        app.add_flag("-h,--help", help);
    }

    CLI::Option& option(const std::string& name) {
        names.push_back(name);
        CLI::Option* o = app.add_option(name);
        o->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
        return *o;
    }

    void add_option(const config::Option& o, std::vector<config::FlagValue>& target);
    [[nodiscard]] tl::unexpected<Error> unknown(const std::string& word) const;

    std::string command;
    CLI::App app;
    bool help = false;
    bool takes_words = false;
    std::vector<std::string> names;
    std::vector<std::function<void()>> collect;  ///< run after a successful parse
    std::deque<bool> denied;                     ///< CLI11 keeps references to these
};

CommandLine::CommandLine(std::string command) : impl_(std::make_unique<Impl>(std::move(command))) {}
CommandLine::~CommandLine() = default;

void CommandLine::add_switch(const std::string& name, bool& target) {
    impl_->names.push_back(name);
    impl_->app.add_flag(name, target);
}

void CommandLine::add_value(const std::string& name, std::string& target) {
    CLI::Option& o = impl_->option(name);
    impl_->collect.emplace_back([&o, &target] {
        if (!o.results().empty()) target = o.results().back();
    });
}

void CommandLine::add_values(const std::string& name, std::vector<std::string>& target) {
    CLI::Option& o = impl_->option(name);
    impl_->collect.emplace_back([&o, &target] { target = o.results(); });
}

void CommandLine::add_words(std::vector<std::string>& target) {
    impl_->takes_words = true;
    impl_->app.add_option("words", target);
}

void CommandLine::add_options(std::vector<config::FlagValue>& target) {
    for (const config::Option& o : config::options()) impl_->add_option(o, target);
}

void CommandLine::Impl::add_option(const config::Option& o,
                                   std::vector<config::FlagValue>& target) {
    CLI::Option& flag = option(std::string(o.flag));
    if (o.type != config::OptionType::kBool) {
        collect.emplace_back([&flag, &o, &target] {
            if (!flag.results().empty()) target.push_back({&o, flag.results()});
        });
        return;
    }
    // The value may be left out: "--access-log", "--access-log false", "--access-log=false",
    // "--no-access-log".
    flag.expected(0, 1);
    bool& no = denied.emplace_back(false);
    names.push_back(denial(o.flag));
    app.add_flag(names.back(), no);
    collect.emplace_back([&flag, &no, &o, &target] {
        if (flag.count() == 0 && !no) return;
        std::vector<std::string> texts = flag.results();
        std::erase(texts, "");
        if (no) texts.assign(1, "false");
        if (texts.empty()) texts.emplace_back("true");
        target.push_back({&o, std::move(texts)});
    });
}

tl::unexpected<Error> CommandLine::Impl::unknown(const std::string& word) const {
    if (!word.starts_with('-')) {
        return error(ErrorCode::kInvalidArgument, "{} takes no further words, but {} was given.",
                     command, config::in_quotes(word));
    }
    const std::string flag = word.substr(0, word.find('='));
    const std::vector<std::string_view> candidates(names.begin(), names.end());
    return error(ErrorCode::kInvalidArgument, "{} has no option {}.{}", command,
                 config::in_quotes(flag), config::did_you_mean(flag, candidates));
}

Result<CommandLine::Outcome> CommandLine::parse(const std::vector<std::string>& args) {
    std::vector<std::string> reversed(args.rbegin(), args.rend());
    try {
        impl_->app.parse(reversed);
    } catch (const CLI::ParseError& e) {
        // With extras allowed and no types given, what is left is a flag at the end that lacks its
        // value.
        const std::string flag = args.empty() ? impl_->command : args.back();
        return error(ErrorCode::kInvalidArgument, "{} needs a value after it ({}).",
                     config::in_quotes(flag), e.what());
    }
    if (impl_->help) return Outcome::kHelp;
    const std::vector<std::string> rest = impl_->app.remaining();
    const auto first = std::ranges::find_if(rest, [](const std::string& w) { return w != "--"; });
    if (first != rest.end()) return impl_->unknown(*first);
    for (const auto& f : impl_->collect) f();
    return Outcome::kRun;
}

}  // namespace stator::cli
