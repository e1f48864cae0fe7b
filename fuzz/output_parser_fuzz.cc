// Any output of a model, in every notation. The first byte chooses the notation of calls, the
// second that of thinking, the third the rest and how the text is cut: whatever the cut, the same
// must come out.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/check.h"
#include "stator/codec/utf8.h"
#include "stator/text/parsers/json_scan.h"
#include "stator/text/parsers/output_parser.h"

namespace {

using namespace stator;
using text::OutputEvents;

std::size_t next_border(std::string_view text, std::size_t at) {
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
    return at < text.size() ? at : text.size();
}

OutputEvents parse(const text::OutputParserOptions& options, std::string_view output,
                   std::size_t cut) {
    auto parser = text::make_output_parser(options);
    STATOR_CHECK(parser.has_value(), "the formats exist");
    OutputEvents all;
    OutputEvents out;
    const auto collect = [&] {
        for (const auto& e : out.events) all.add(e.kind, out.of(e), e.tool);
        out.clear();
    };
    while (!output.empty()) {
        const std::size_t n = next_border(output, cut < output.size() ? cut : output.size());
        (*parser)->push(output.substr(0, n), out);
        output.remove_prefix(n);
        collect();
    }
    (*parser)->finish(out);
    collect();
    return all;
}

bool same(const OutputEvents& a, const OutputEvents& b) {
    if (a.text != b.text || a.events.size() != b.events.size()) return false;
    for (std::size_t i = 0; i < a.events.size(); ++i) {
        if (a.events[i].kind != b.events[i].kind || a.events[i].tool != b.events[i].tool ||
            a.of(a.events[i]) != b.of(b.events[i])) {
            return false;
        }
    }
    return true;
}

void check_order(const OutputEvents& all) {
    using Kind = OutputEvents::Kind;
    std::uint32_t calls = 0;
    std::string arguments;
    for (const auto& e : all.events) {
        if (e.kind == Kind::kToolBegin) {
            STATOR_CHECK(e.tool == calls++, "calls are numbered in order");
            STATOR_CHECK(e.size > 0, "a call has a name");
            arguments.clear();
        } else if (e.kind == Kind::kToolArguments) {
            STATOR_CHECK(e.tool + 1 == calls, "arguments of the last call");
            arguments += all.of(e);
        } else if (e.kind == Kind::kToolEnd) {
            STATOR_CHECK(e.tool + 1 == calls, "the end of the last call");
            STATOR_CHECK(text::is_json(arguments), "a whole call has arguments in JSON");
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 3) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 3, size - 3);
    const std::string_view output = bytes.substr(0, codec::utf8_valid_prefix(bytes));
    const auto tools = text::tool_formats();
    const auto reasoning = text::reasoning_formats();
    text::OutputParserOptions options;
    options.format.tools = tools[data[0] % tools.size()];
    const std::size_t r = data[1] % (reasoning.size() + 1);
    if (r > 0) options.format.reasoning = reasoning[r - 1];
    options.begins_in_reasoning = (data[2] & 1U) != 0;
    options.forced = (data[2] & 6U) == 6U;
    if ((data[2] & 8U) != 0) options.forced_name = "f";
    using Type = text::ToolShape::Type;
    options.tools.push_back({"f",
                             {{"s", Type::kString},
                              {"n", Type::kNumber},
                              {"i", Type::kInteger},
                              {"b", Type::kBoolean},
                              {"o", Type::kObject},
                              {"l", Type::kArray},
                              {"a", Type::kAny}}});
    const auto whole = parse(options, output, output.size() + 1);
    check_order(whole);
    STATOR_CHECK(same(whole, parse(options, output, 1)), "the cut changes the outcome");
    STATOR_CHECK(same(whole, parse(options, output, 2 + (data[2] >> 4U))),
                 "the cut changes the outcome");
    (void)text::detect_output_format(output);
    return 0;
}
