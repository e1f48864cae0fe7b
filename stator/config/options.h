#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "stator/base/error.h"
#include "stator/config/settings.h"

namespace stator::config {

enum class OptionType : std::uint8_t {
    kBool,
    kInt,
    kFloat,
    kString,
    kDuration,  ///< milliseconds; written "500ms", "30s", "2m", "1h", a number alone is seconds
    kBytes,     ///< written "65536", "64K", "32M", "1G" (powers of 1024)
    kChoice,    ///< one of Option::choices
    kList,  ///< texts; in YAML a sequence, as a flag given several times, in the environment with
            ///< commas
};
std::string_view to_string(OptionType type);

/// Position in Option::choices.
struct Choice {
    std::size_t index = 0;
    bool operator==(const Choice&) const = default;
};

/// A value of any option. monostate: not set (only where Option::unset_means says what that is).
using Value = std::variant<std::monostate, bool, std::int64_t, double, std::string,
                           std::chrono::milliseconds, ByteSize, Choice, std::vector<std::string>>;

/// One option: everything that `--help`, the YAML reader, the environment, `stator config` and the
/// reference manual need.
struct Option {
    std::string_view key;   ///< in YAML, "server.port": section and name
    std::string_view flag;  ///< "--port"
    OptionType type = OptionType::kString;
    std::string_view unit;         ///< "tokens"; empty where the type says it all
    std::string_view meaning;      ///< one or two plain sentences
    std::string_view unset_means;  ///< for options that may be unset: what happens then
    double min =
        -std::numeric_limits<double>::infinity();  ///< in milliseconds, bytes or the number itself
    double max = std::numeric_limits<double>::infinity();
    bool min_excluded = false;
    std::span<const std::string_view> choices;

    /// Of lists: what is wrong with the items. Null: nothing can be.
    Result<void> (*check)(const std::vector<std::string>& items) = nullptr;
    Value (*get)(const Settings&) = nullptr;
    /// The value must have the type's alternative and lie in the range: parse_value() sees to both.
    void (*set)(Settings&, const Value&) = nullptr;

    /// "server"
    [[nodiscard]] std::string_view section() const;
    /// "STATOR_PORT": the flag in upper case with underscores.
    [[nodiscard]] std::string environment() const;
};

/// Options that belong together: a section of the YAML file, of `--help` and of the manual.
struct Section {
    std::string_view name;   ///< "server"
    std::string_view title;  ///< "Server"
    std::string_view intro;  ///< one sentence; may be empty
};

/// All of them, in the order in which people should read them. Static storage.
[[nodiscard]] std::span<const Option> options();
[[nodiscard]] std::span<const Section> sections();

/// nullptr where there is none.
[[nodiscard]] const Option* find_option(std::string_view key);

/// Position within options().
[[nodiscard]] std::size_t index_of(const Option& option);

}  // namespace stator::config
