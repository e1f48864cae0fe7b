#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/config/load.h"

namespace stator::cli {

/// The words of one subcommand: which flags it has, then parse(). `-h` and `--help` are always
/// there. Targets must live until parse() has returned. CLI11 stops at this class's source.
class CommandLine {
  public:
    /// `command` as people type it, for messages: "stator serve".
    explicit CommandLine(std::string command);
    ~CommandLine();

    /// `--json`
    void add_switch(const std::string& name, bool& target);
    /// `--url TEXT`; given twice, the last one counts.
    void add_value(const std::string& name, std::string& target);
    /// The same, but all that are given count, in their order.
    void add_values(const std::string& name, std::vector<std::string>& target);
    /// Words that belong to no flag. Without this they are errors.
    void add_words(std::vector<std::string>& target);
    /// Every option of the configuration, as a flag.
    void add_options(std::vector<config::FlagValue>& target);

    enum class Outcome : std::uint8_t { kRun, kHelp };
    /// Fills the targets. kInvalidArgument with a sentence for the terminal, with a suggestion
    /// where a flag is nearly one that exists.
    [[nodiscard]] Result<Outcome> parse(const std::vector<std::string>& args);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::cli
