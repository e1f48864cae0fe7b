#include "stator/config/yaml_file.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "stator/config/suggest.h"
#include "stator/config/value.h"

namespace stator::config {
namespace {

int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

std::string_view shape_of(const YAML::Node& node) {
    switch (node.Type()) {
        case YAML::NodeType::Undefined:
        case YAML::NodeType::Null:
            return "empty";
        case YAML::NodeType::Scalar:
            return "a single value";
        case YAML::NodeType::Sequence:
            return "a list";
        case YAML::NodeType::Map:
            return "a section";
    }
    return "empty";
}

class Reader {
  public:
    explicit Reader(std::string_view name) : name_(name) {}

    void document(const YAML::Node& root) {
        if (root.IsNull()) return;
        if (!root.IsMap()) {
            problem(root, "The file must consist of sections such as \"server:\", but it is {}.",
                    shape_of(root));
            return;
        }
        for (const auto& entry : root) section(entry.first, entry.second);
    }

    template <typename... Args>
    void problem_at(int line, fmt::format_string<Args...> format, Args&&... args) {
        out_.problems.push_back({line > 0 ? fmt::format("{}:{}", name_, line) : name_,
                                 fmt::format(format, std::forward<Args>(args)...)});
    }

    FileReading take() { return std::move(out_); }

  private:
    template <typename... Args>
    void problem(const YAML::Node& node, fmt::format_string<Args...> format, Args&&... args) {
        problem_at(line_of(node), format, std::forward<Args>(args)...);
    }

    /// The key as text; empty (and a problem) where it is no plain word or was there before.
    std::optional<std::string> key_of(const YAML::Node& key, std::string_view prefix) {
        if (!key.IsScalar()) {
            problem(key, "A name is expected here, but this is {}.", shape_of(key));
            return std::nullopt;
        }
        std::string name = std::string(prefix) + key.Scalar();
        const auto [at, fresh] = seen_.emplace(name, line_of(key));
        if (!fresh) {
            problem(key, "{} is given twice; the first time in line {}.", in_quotes(name),
                    at->second);
            return std::nullopt;
        }
        return name;
    }

    void section(const YAML::Node& key, const YAML::Node& body) {
        const auto name = key_of(key, "");
        if (!name) return;
        std::vector<std::string_view> names;
        for (const Section& s : sections()) {
            names.push_back(s.name);
            if (s.name != *name) continue;
            if (body.IsNull()) return;  // a section whose lines are all commented out
            if (!body.IsMap()) {
                problem(body, "{} is a section and must have options below it, but it is {}.",
                        *name, shape_of(body));
                return;
            }
            for (const auto& entry : body) option(entry.first, entry.second, *name + ".");
            return;
        }
        unknown_section(key, *name, names);
    }

    void unknown_section(const YAML::Node& key, const std::string& name,
                         const std::vector<std::string_view>& names) {
        const Option* option = find_option(name);
        std::string hint = did_you_mean(name, names);
        if (option == nullptr) {
            for (const Option& o : options()) {
                if (o.key.substr(o.key.find('.') + 1) == name) option = &o;
            }
        }
        if (option != nullptr) {
            hint = fmt::format(" Write \"{}\" below \"{}:\".",
                               option->key.substr(option->key.find('.') + 1), option->section());
        }
        problem(key, "There is no section {}.{}", in_quotes(name), hint);
    }

    void option(const YAML::Node& key, const YAML::Node& node, const std::string& prefix) {
        const auto name = key_of(key, prefix);
        if (!name) return;
        const Option* option = find_option(*name);
        if (option == nullptr) {
            unknown_option(key, *name, prefix);
            return;
        }
        if (auto value = value_of(*option, node)) {
            out_.entries.push_back({option, std::move(*value), line_of(key)});
        }
    }

    void unknown_option(const YAML::Node& key, const std::string& name, const std::string& prefix) {
        const std::string_view leaf = std::string_view(name).substr(prefix.size());
        std::vector<std::string_view> here;
        std::string_view elsewhere;
        for (const Option& o : options()) {
            if (o.key.starts_with(prefix)) here.push_back(o.key);
            if (o.key.substr(o.key.find('.') + 1) == leaf) elsewhere = o.key;
        }
        const std::string hint = elsewhere.empty() ? did_you_mean(name, here)
                                                   : fmt::format(" Did you mean {}?", elsewhere);
        problem(key, "There is no option {}.{}", in_quotes(name), hint);
    }

    std::optional<Value> value_of(const Option& option, const YAML::Node& node) {
        if (node.IsNull()) {
            problem(node, "{} has no value; it must be {}, or the line must go.", option.key,
                    expectation(option));
            return std::nullopt;
        }
        if (option.type == OptionType::kList && node.IsSequence()) return list_of(option, node);
        if (!node.IsScalar()) {
            problem(node, "{} is {}; it must be {}.", option.key, shape_of(node),
                    expectation(option));
            return std::nullopt;
        }
        auto value = parse_value(option, node.Scalar());
        if (!value) {
            problem(node, "{}: {}.", option.key, value.error().message);
            return std::nullopt;
        }
        return std::move(*value);
    }

    std::optional<Value> list_of(const Option& option, const YAML::Node& node) {
        std::vector<std::string> items;
        for (const YAML::Node& item : node) {
            if (!item.IsScalar() || item.Scalar().empty()) {
                problem(item, "{} has an item that is {}; it must be {}.", option.key,
                        shape_of(item), expectation(option));
                return std::nullopt;
            }
            items.push_back(item.Scalar());
        }
        if (option.check != nullptr) {
            if (const auto ok = option.check(items); !ok) {
                problem(node, "{}: {}.", option.key, ok.error().message);
                return std::nullopt;
            }
        }
        return Value(std::move(items));
    }

    std::string name_;
    std::map<std::string, int> seen_;  ///< dotted name → line
    FileReading out_;
};

/// Listens to nothing but the starts of documents.
class DocumentStarts : public YAML::EventHandler {
  public:
    int line = 0;  ///< of the last one, from 1

    void OnDocumentStart(const YAML::Mark& mark) override { line = mark.line + 1; }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
    void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  const std::string&) override {}
    void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                         YAML::EmitterStyle::value) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                    YAML::EmitterStyle::value) override {}
    void OnMapEnd() override {}
};

/// The line in which a second document begins. Asks the parser twice and no more: at some texts
/// ("a\n? b") yaml-cpp's reader of documents stops advancing, so that LoadAll never ends.
std::optional<int> second_document(const std::string& text) {
    std::istringstream in(text);
    YAML::Parser parser(in);
    DocumentStarts starts;
    if (!parser.HandleNextDocument(starts) || !parser.HandleNextDocument(starts)) return {};
    return starts.line;
}

}  // namespace

FileReading read_yaml(std::string_view name, std::string_view text) {
    Reader reader(name);
    if (text.size() > kMaxFileBytes) {
        reader.problem_at(0, "The file has {} bytes; a configuration file may have at most {}.",
                          text.size(), kMaxFileBytes);
        return reader.take();
    }
    try {
        const std::string copy(text);
        if (const std::optional<int> line = second_document(copy)) {
            reader.problem_at(*line,
                              "A second document begins here; a configuration file has one.");
        }
        reader.document(YAML::Load(copy));
    } catch (const YAML::Exception& e) {
        reader.problem_at(e.mark.is_null() ? 0 : e.mark.line + 1, "This is not YAML: {}.", e.msg);
    }
    return reader.take();
}

}  // namespace stator::config
