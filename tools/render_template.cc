// Renders chat templates for the tests that hold ours against Jinja2. A line of JSON in,
//     {"template": …, "bos": …, "eos": …, "unix_seconds": …, "context": {…}}
// a line of JSON out: {"text": …} or {"error": …}.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <optional>
#include <string>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/text/chat_template.h"
#include "stator/text/parsers/output_parser.h"

namespace {

using namespace stator;

std::string string_of(codec::JsonView v) { return std::string(v.as_string().value_or("")); }

/// What the template's notations are, as {"tools": …, "reasoning": …}.
void write_format(codec::JsonWriter& w, std::string_view source) {
    const auto format = text::detect_output_format(source);
    w.key("format").begin_object().key("tools").string(format.tools);
    w.key("reasoning").string(format.reasoning).end_object();
}

std::string answer(codec::JsonView request,
                   std::map<std::string, std::optional<text::ChatTemplate>>& compiled) {
    const std::string source = string_of(request.find("template"));
    std::string line;
    codec::JsonWriter w(line);
    w.begin_object();
    write_format(w, source);
    auto& entry = compiled[source];
    if (!entry) {
        auto made = text::ChatTemplate::compile(source, string_of(request.find("bos")),
                                                string_of(request.find("eos")));
        if (!made) {
            w.key("error").string(made.error().message).end_object();
            return line;
        }
        entry.emplace(std::move(*made));
    }
    std::string context;
    request.find("context").write_to(context);
    const auto rendered = entry->render(context, request.find("unix_seconds").as_int());
    if (rendered) {
        w.key("text").string(*rendered);
    } else {
        w.key("error").string(rendered.error().message);
    }
    w.end_object();
    return line;
}

}  // namespace

int main() {
    std::map<std::string, std::optional<text::ChatTemplate>> compiled;
    codec::JsonDocument document;
    std::string line;
    while (std::getline(std::cin, line)) {
        const auto request = document.parse(line);
        if (!request) {
            fmt::print(stderr, "render_template: {}\n", request.error().message);
            return 1;
        }
        std::cout << answer(*request, compiled) << '\n' << std::flush;
    }
    return 0;
}
