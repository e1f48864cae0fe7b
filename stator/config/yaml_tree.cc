#include "stator/config/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "stator/config/value.h"
#include "stator/config/yaml_file.h"

namespace stator::config {
namespace {

/// Copies yaml-cpp's nodes, with bounds.
class TreeReader {
  public:
    explicit TreeReader(std::string_view file) : file_(file) {}

    YamlTree copy(const YAML::Node& node, std::size_t depth) {
        YamlTree tree;
        tree.line = std::max(1, node.Mark().line + 1);  // an empty document has none
        if (++nodes_ > kMaxYamlNodes || depth > kMaxYamlDepth) {
            if (problems.empty()) {
                problem(tree.line, fmt::format("There are more than {} values here, or they are "
                                               "nested more than {} deep.",
                                               kMaxYamlNodes, kMaxYamlDepth));
            }
            return tree;
        }
        if (node.IsScalar()) {
            tree.kind = YamlTree::Kind::kScalar;
            tree.scalar = node.Scalar();
        } else if (node.IsSequence()) {
            tree.kind = YamlTree::Kind::kList;
            for (const YAML::Node& item : node) tree.items.push_back(copy(item, depth + 1));
        } else if (node.IsMap()) {
            tree.kind = YamlTree::Kind::kMap;
            for (const auto& entry : node) field(tree, entry.first, entry.second, depth);
        }
        return tree;
    }

    void problem(int line, std::string message) {
        problems.push_back({fmt::format("{}:{}", file_, line), std::move(message)});
    }

    Problems problems;

  private:
    void field(YamlTree& tree, const YAML::Node& key, const YAML::Node& value, std::size_t depth) {
        const int line = key.Mark().line + 1;
        if (!key.IsScalar()) return problem(line, "A name must be a word.");
        const std::string& name = key.Scalar();
        if (std::ranges::find(tree.names, name) != tree.names.end()) {
            return problem(line, fmt::format("{} stands here twice.", in_quotes(name)));
        }
        tree.names.push_back(name);
        tree.items.push_back(copy(value, depth + 1));
        if (tree.items.back().line == 0) tree.items.back().line = line;
    }

    std::string file_;
    std::size_t nodes_ = 0;
};

}  // namespace

tl::expected<YamlTree, Problems> read_yaml_tree(std::string_view name, std::string_view text) {
    TreeReader reader(name);
    if (text.size() > kMaxFileBytes) {
        reader.problem(1, fmt::format("The file has {} bytes; at most {} are read.", text.size(),
                                      kMaxFileBytes));
        return tl::unexpected(std::move(reader.problems));
    }
    try {
        YamlTree tree = reader.copy(YAML::Load(std::string(text)), 0);
        if (!reader.problems.empty()) return tl::unexpected(std::move(reader.problems));
        return tree;
    } catch (const YAML::Exception& e) {
        reader.problem(e.mark.line + 1, fmt::format("This is no YAML: {}.", e.msg));
        return tl::unexpected(std::move(reader.problems));
    }
}

std::optional<double> parse_number(std::string_view text) {
    double value = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) {
        return std::nullopt;
    }
    return value;
}

std::optional<double> parse_seconds(std::string_view text) {
    static constexpr std::pair<std::string_view, double> kUnits[] = {
        {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
    for (const auto& [unit, factor] : kUnits) {
        if (!text.ends_with(unit)) continue;
        const auto number = parse_number(text.substr(0, text.size() - unit.size()));
        if (number) return *number * factor;
    }
    return parse_number(text);
}

YamlFields::YamlFields(const YamlTree& map, std::string_view file, std::string_view what,
                       Problems& problems)
    : map_(map), file_(file), what_(what), problems_(problems) {
    if (map.kind != YamlTree::Kind::kMap && map.kind != YamlTree::Kind::kNull) {
        problem(map, fmt::format("{} must be names with values, one below the other.", what_));
    }
}

void YamlFields::problem(const YamlTree& at, std::string message) {
    problems_.push_back({fmt::format("{}:{}", file_, at.line), std::move(message)});
}

const YamlTree* YamlFields::find(std::string_view name) {
    known_.emplace(name);
    const auto found = std::ranges::find(map_.names, name);
    if (found == map_.names.end()) return nullptr;
    return &map_.items[static_cast<std::size_t>(found - map_.names.begin())];
}

const YamlTree* YamlFields::scalar(std::string_view name, std::string_view expected) {
    const YamlTree* field = find(name);
    if (field == nullptr || field->kind == YamlTree::Kind::kScalar) return field;
    problem(*field, fmt::format("{} in {} must be {}.", name, what_, expected));
    return nullptr;
}

void YamlFields::text(std::string_view name, std::string& value) {
    if (const YamlTree* field = scalar(name, "text")) value = field->scalar;
}

void YamlFields::number(std::string_view name, double& value, double min, double max) {
    const std::string expected = fmt::format("a number from {} to {}", min, max);
    const YamlTree* field = scalar(name, expected);
    if (field == nullptr) return;
    const auto n = parse_number(field->scalar);
    if (n && *n >= min && *n <= max) {
        value = *n;
    } else {
        problem(*field, fmt::format("{} in {} is {}; it must be {}.", name, what_,
                                    in_quotes(field->scalar), expected));
    }
}

void YamlFields::flag(std::string_view name, bool& value) {
    const YamlTree* field = scalar(name, "true or false");
    if (field == nullptr) return;
    if (field->scalar == "true" || field->scalar == "false") {
        value = field->scalar == "true";
    } else {
        problem(*field, fmt::format("{} in {} is {}; it must be true or false.", name, what_,
                                    in_quotes(field->scalar)));
    }
}

void YamlFields::numbers(std::string_view name, std::vector<double>& values, double min,
                         double max) {
    const YamlTree* field = find(name);
    if (field == nullptr) return;
    std::vector<double> read;
    for (const YamlTree& item : field->items) {
        const auto n = parse_number(item.scalar);
        if (!n || *n < min || *n > max) {
            return problem(item, fmt::format("{} in {} holds {}; all of it must be numbers from {} "
                                             "to {}.",
                                             name, what_, in_quotes(item.scalar), min, max));
        }
        read.push_back(*n);
    }
    if (field->kind != YamlTree::Kind::kList) {
        return problem(*field, fmt::format("{} in {} must be a list of numbers.", name, what_));
    }
    values = std::move(read);
}

std::optional<std::uint64_t> YamlFields::whole(std::string_view name, std::uint64_t min,
                                               std::uint64_t max) {
    const std::string expected = fmt::format("a whole number from {} to {}", min, max);
    const YamlTree* field = scalar(name, expected);
    if (field == nullptr) return std::nullopt;
    std::uint64_t n = 0;
    const std::string& s = field->scalar;
    const auto [end, failed] = std::from_chars(s.data(), s.data() + s.size(), n);
    if (failed == std::errc{} && end == s.data() + s.size() && n >= min && n <= max) return n;
    problem(*field,
            fmt::format("{} in {} is {}; it must be {}.", name, what_, in_quotes(s), expected));
    return std::nullopt;
}

void YamlFields::seconds(std::string_view name, double& value, double min, double max) {
    const YamlTree* field = scalar(name, "a time such as 50ms or 2s");
    if (field == nullptr) return;
    const auto n = parse_seconds(field->scalar);
    if (n && *n >= min && *n <= max) {
        value = *n;
    } else {
        problem(*field,
                fmt::format("{} in {} is {}; it must be a time such as 50ms or 2s, from {}s to "
                            "{}s.",
                            name, what_, in_quotes(field->scalar), min, max));
    }
}

void YamlFields::finish() {
    const std::vector<std::string_view> names(known_.begin(), known_.end());
    for (std::size_t i = 0; i < map_.names.size(); ++i) {
        const std::string& name = map_.names[i];
        if (known_.contains(name)) continue;
        problem(map_.items[i],
                fmt::format("There is nothing called {} in {}; {}.", in_quotes(name), what_,
                            fmt::format("it takes {}", fmt::join(names, ", "))));
    }
}

}  // namespace stator::config
