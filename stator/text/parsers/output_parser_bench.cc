#include <benchmark/benchmark.h>

#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/output_parser.h"

namespace stator::text {
namespace {

/// Prose in pieces of the length that tokens have.
std::vector<std::string_view> tokens_of(std::string_view text) {
    static constexpr std::size_t kLengths[] = {4, 1, 6, 3, 5, 8, 2};
    std::vector<std::string_view> tokens;
    for (std::size_t i = 0, n = 0; i < text.size(); i += kLengths[n++ % 7]) {
        tokens.push_back(text.substr(i, kLengths[n % 7]));
    }
    return tokens;
}

/// The text again and again, one token at a time.
void push_all(benchmark::State& state, OutputParser& parser, const std::string& text) {
    const auto tokens = tokens_of(text);
    OutputEvents out;
    for (auto _ : state) {
        for (const std::string_view token : tokens) {
            out.clear();
            parser.push(token, out);
            benchmark::DoNotOptimize(out.events.data());
        }
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * tokens.size()));
    state.counters["per_token"] =
        benchmark::Counter(static_cast<double>(state.iterations() * tokens.size()),
                           benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

/// Ordinary text, one token at a time: what every token of every answer pays.
void ordinary_text(benchmark::State& state, const char* tools, const char* reasoning) {
    const std::string text =
        "The lake lies in the hills, and the town (founded in 1218) looks over it: a few "
        "thousand people, one railway line, three cafes.\nWhoever comes in spring, said the guide, "
        "sees it at its best; in winter 'tis quiet. ";
    OutputParserOptions options;
    options.format = {tools, reasoning};
    auto parser = make_output_parser(options);
    OutputEvents out;
    if (*reasoning != '\0') (*parser)->push("<think>so</think>", out);
    (*parser)->push("Well, ", out);
    push_all(state, **parser, text);
}
BENCHMARK_CAPTURE(ordinary_text, none, "", "");
BENCHMARK_CAPTURE(ordinary_text, hermes_qwen3, "hermes", "qwen3");
BENCHMARK_CAPTURE(ordinary_text, mistral, "mistral", "mistral");
BENCHMARK_CAPTURE(ordinary_text, deepseek_v3_2, "deepseek_v3_2", "deepseek_v3_1");
BENCHMARK_CAPTURE(ordinary_text, qwen3_coder, "qwen3_coder", "qwen3");
BENCHMARK_CAPTURE(ordinary_text, phi4, "phi4", "");
BENCHMARK_CAPTURE(ordinary_text, pythonic, "pythonic", "");

/// Inside thinking.
void thinking(benchmark::State& state) {
    const std::string text = "so it is likely that the user wants the second of them, but then ";
    OutputParserOptions options;
    options.format = {"hermes", "qwen3"};
    options.begins_in_reasoning = true;
    auto parser = make_output_parser(options);
    OutputEvents out;
    (*parser)->push("So ", out);
    push_all(state, **parser, text);
}
BENCHMARK(thinking);

/// A call's arguments, one token at a time.
void arguments(benchmark::State& state) {
    const std::string text =
        "\"line one of a file\", \"with \\\"quotes\\\" and numbers\", 12, {}, ";
    OutputParserOptions options;
    options.format = {"hermes", ""};
    auto parser = make_output_parser(options);
    OutputEvents out;
    (*parser)->push("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": [", out);
    push_all(state, **parser, text);
}
BENCHMARK(arguments);

}  // namespace
}  // namespace stator::text
