#include "stator/text/parsers/argument_json.h"

#include <algorithm>

#include "stator/text/parsers/marks.h"
#include "stator/text/parsers/python_value.h"
#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

using Type = ToolShape::Type;

namespace {

void append_string(std::string& out, std::string_view text) {
    out.push_back('"');
    append_json_escaped(out, text);
    out.push_back('"');
}

bool same_but_for_case(std::string_view a, std::string_view lower) {
    return std::ranges::equal(a, lower, [](char x, char y) {
        return (x >= 'A' && x <= 'Z' ? static_cast<char>(x - 'A' + 'a') : x) == y;
    });
}

bool fits(std::string_view json, Type type) {
    const char c = json.front();
    if (json == "null") return true;
    switch (type) {
        case Type::kNumber:
        case Type::kInteger:
            return c == '-' || (c >= '0' && c <= '9');
        case Type::kBoolean:
            return c == 't' || c == 'f';
        case Type::kObject:
            return c == '{';
        case Type::kArray:
            return c == '[';
        case Type::kAny:
            return true;
        case Type::kString:
            return c == '"';
    }
    return false;
}

}  // namespace

Type parameter_type(const std::vector<ToolShape>& tools, std::string_view function,
                    std::string_view parameter, Type otherwise) {
    const auto tool = std::ranges::find(tools, function, &ToolShape::name);
    if (tool == tools.end()) return otherwise;
    const auto found = tool->parameters.find(parameter);
    return found == tool->parameters.end() ? otherwise : found->second;
}

void append_argument_json(std::string& out, std::string_view text, Type type) {
    if (type == Type::kString) return append_string(out, text);
    const std::string_view value = trimmed(text);
    if (value.empty()) return append_string(out, text);
    if (is_json(value) && fits(value, type)) {
        out.append(value);
        return;
    }
    for (const std::string_view word : {"true", "false", "null"}) {
        if (same_but_for_case(value, word) && fits(word, type)) {
            out.append(word);
            return;
        }
    }
    if (const auto json = python_as_json(value); json && fits(*json, type)) {
        out.append(*json);
        return;
    }
    append_string(out, text);
}

void ArgumentObject::key(std::string& out, std::string_view key) {
    out.append(any_ ? ", " : "{");
    any_ = true;
    append_string(out, key);
    out.append(": ");
}

void ArgumentObject::begin_value(std::string_view key, Type type) {
    key_ = std::string(key);
    type_ = type;
    mode_ = type == Type::kString ? Mode::kText : Mode::kKept;
    started_ = false;
    kept_.clear();
    scan_ = JsonScan();
}

/// A long value that is not complete: JSON goes out as it comes, anything else as a string.
void ArgumentObject::write_kept(std::string& out) {
    std::string kept;
    kept.swap(kept_);
    const std::string_view text = trimmed(kept);
    JsonScan probe;
    const bool json = (text.starts_with('{') || text.starts_with('[')) &&
                      probe.feed(kept) == kept.size() && probe.open();
    mode_ = json ? Mode::kJson : Mode::kText;
    if (json) key(out, key_);
    (void)value(out, kept);
}

std::size_t ArgumentObject::value(std::string& out, std::string_view piece) {
    std::size_t taken = 0;
    while (taken < piece.size()) {
        const std::string_view rest = piece.substr(taken);
        switch (mode_) {
            case Mode::kText:
                if (!started_) {
                    key(out, key_);
                    out.push_back('"');
                    started_ = true;
                }
                append_json_escaped(out, rest);
                return piece.size();
            case Mode::kKept: {
                const std::size_t n = std::min(rest.size(), kMaxHeld - kept_.size());
                kept_.append(rest.substr(0, n));
                taken += n;
                if (kept_.size() == kMaxHeld) write_kept(out);
                break;
            }
            case Mode::kJson: {
                const std::size_t n = scan_.feed(rest);
                out.append(rest.substr(0, n));
                taken += n;
                if (n == rest.size()) break;
                if (scan_.bad()) return taken;
                if (scan_.done() && !is_space(rest[n])) return taken;
                if (scan_.open()) append_json_escaped(out, rest.substr(n, 1));
                ++taken;
                break;
            }
        }
    }
    return taken;
}

bool ArgumentObject::end_value(std::string& out) {
    switch (mode_) {
        case Mode::kText:
            if (!started_) {
                key(out, key_);
                out.push_back('"');
            }
            out.push_back('"');
            return true;
        case Mode::kKept:
            key(out, key_);
            append_argument_json(out, kept_, type_);
            return true;
        case Mode::kJson:
            return scan_.done();
    }
    return false;
}

void ArgumentObject::end(std::string& out) { out.append(any_ ? "}" : "{}"); }

}  // namespace stator::text
