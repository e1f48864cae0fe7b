#include "stator/text/parsers/transcript_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "stator/codec/json.h"

namespace stator::text {
namespace {

using codec::JsonView;

std::string string_of(JsonView v) { return std::string(v.as_string().value_or("")); }

ToolShape::Type type_of(std::string_view name) {
    using Type = ToolShape::Type;
    if (name == "string") return Type::kString;
    if (name == "number") return Type::kNumber;
    if (name == "integer") return Type::kInteger;
    if (name == "boolean") return Type::kBoolean;
    if (name == "object") return Type::kObject;
    if (name == "array") return Type::kArray;
    return Type::kAny;
}

void read_options(JsonView v, OutputParserOptions& options) {
    if (v.find("tool_format").present()) options.format.tools = string_of(v.find("tool_format"));
    if (v.find("reasoning_format").present()) {
        options.format.reasoning = string_of(v.find("reasoning_format"));
    }
    if (const auto b = v.find("begins_in_reasoning").as_bool()) options.begins_in_reasoning = *b;
    if (const auto b = v.find("forced").as_bool()) options.forced = *b;
    if (v.find("forced_name").present()) options.forced_name = string_of(v.find("forced_name"));
    v.find("tools").each_member([&](std::string_view name, JsonView parameters) {
        ToolShape shape;
        shape.name = std::string(name);
        parameters.each_member([&](std::string_view parameter, JsonView type) {
            shape.parameters.emplace(parameter, type_of(type.as_string().value_or("")));
            return true;
        });
        options.tools.push_back(std::move(shape));
        return true;
    });
}

ParsedOutput read_expected(JsonView v) {
    ParsedOutput expected;
    expected.content = string_of(v.find("content"));
    expected.reasoning = string_of(v.find("reasoning"));
    v.find("calls").each_element([&](std::size_t, JsonView call) {
        expected.calls.push_back({string_of(call.find("name")), string_of(call.find("arguments")),
                                  call.find("complete").as_bool().value_or(true)});
        return true;
    });
    return expected;
}

}  // namespace

std::vector<Transcript> read_transcripts() {
    std::vector<Transcript> all;
    const char* folder = std::getenv("STATOR_PARSER_TRANSCRIPTS");
    if (folder == nullptr) {
        ADD_FAILURE() << "STATOR_PARSER_TRANSCRIPTS names test/transcripts/parsers";
        return all;
    }
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::ifstream file(entry.path());
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        codec::JsonDocument document;
        const auto root = document.parse(text);
        if (!root) {
            ADD_FAILURE() << entry.path() << ": " << root.error().message;
            continue;
        }
        OutputParserOptions common;
        read_options(*root, common);
        root->find("cases").each_element([&](std::size_t, JsonView item) {
            Transcript t;
            t.name = entry.path().filename().string() + ": " + string_of(item.find("name"));
            t.options = common;
            read_options(item, t.options);
            t.text = string_of(item.find("text"));
            t.expected = read_expected(item);
            all.push_back(std::move(t));
            return true;
        });
    }
    std::ranges::sort(all, {}, &Transcript::name);
    return all;
}

}  // namespace stator::text
