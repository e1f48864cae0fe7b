#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "stator/config/problem.h"

namespace stator::config {

/// A YAML document as plain data, with lines for messages.
struct YamlTree {
    enum class Kind : std::uint8_t { kNull, kScalar, kList, kMap };
    Kind kind = Kind::kNull;
    int line = 0;  ///< from 1
    std::string scalar;
    std::vector<YamlTree> items;     ///< of a list, or the values of a map, in the file's order
    std::vector<std::string> names;  ///< of a map's items, as many; each once
};

constexpr std::size_t kMaxYamlDepth = 16;
constexpr std::size_t kMaxYamlNodes = 100'000;

/// Syntax errors, repeated names, names that are no words, too much text (kMaxFileBytes), nesting
/// or nodes: a problem with its line. `name` is the file's, as it should stand in problems. Aliases
/// are expanded within the bound on nodes.
[[nodiscard]] tl::expected<YamlTree, Problems> read_yaml_tree(std::string_view name,
                                                              std::string_view text);

/// Takes the fields of one map by name; what is missing keeps its default, what is wrong becomes a
/// problem: a type, a range, and at finish() a name that nobody asked for. The tree and the
/// problems must outlive it.
class YamlFields {
  public:
    /// `what` names the map in messages: "fleet".
    YamlFields(const YamlTree& map, std::string_view file, std::string_view what,
               Problems& problems);

    /// The field itself, asked for; null where there is none.
    [[nodiscard]] const YamlTree* find(std::string_view name);
    void text(std::string_view name, std::string& value);
    void number(std::string_view name, double& value, double min, double max);
    void flag(std::string_view name, bool& value);
    void numbers(std::string_view name, std::vector<double>& values, double min, double max);
    /// A whole number.
    template <typename T>
    void count(std::string_view name, T& value, std::uint64_t min, std::uint64_t max) {
        if (const auto n = whole(name, min, max)) value = static_cast<T>(*n);
    }
    /// "50ms", "2s", "1.5h"; a bare number is seconds.
    void seconds(std::string_view name, double& value, double min, double max);

    void problem(const YamlTree& at, std::string message);
    /// Reports the fields that nobody asked for.
    void finish();

  private:
    [[nodiscard]] std::optional<std::uint64_t> whole(std::string_view name, std::uint64_t min,
                                                     std::uint64_t max);
    [[nodiscard]] const YamlTree* scalar(std::string_view name, std::string_view expected);

    const YamlTree& map_;
    std::string file_;
    std::string what_;
    Problems& problems_;
    std::set<std::string, std::less<>> known_;
};

/// "50ms", "2s", "3m", "1h", "250us"; a bare number is seconds. None: no time.
[[nodiscard]] std::optional<double> parse_seconds(std::string_view text);
/// A finite number, all of the text.
[[nodiscard]] std::optional<double> parse_number(std::string_view text);

}  // namespace stator::config
