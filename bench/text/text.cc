// bench_text encode TOKENIZER.json TEXT PROMPT-BYTES | decode TOKENIZER.json TEXT | template
// TEMPLATE CONTEXT.json
//     The text layer as the frontend uses it; prints one JSON object of figures, in CPU seconds of
//     the process. bench/text/peer answers the same calls with the crates below it.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/model/hf_tokenizer.h"
#include "stator/text/chat_template.h"
#include "stator/text/detokenizer.h"
#include "stator/text/parsers/output_parser.h"

namespace {

using stator::model::HfTokenizer;
using stator::text::SpecialTokens;
using stator::text::TokenId;

constexpr int kWarmRounds = 3;
constexpr std::uint64_t kDigestStart = 0xCBF2'9CE4'8422'2325U;

double cpu() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

std::string read_file(const char* path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error(fmt::format("can't read {}", path));
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<std::string_view> prompts(std::string_view text, std::size_t size) {
    std::vector<std::string_view> all;
    while (!text.empty()) {
        std::size_t end = std::min(size, text.size());
        while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) --end;
        all.push_back(text.substr(0, end));
        text.remove_prefix(end);
    }
    return all;
}

template <typename Units>
std::uint64_t digest(const Units& units, std::uint64_t hash) {
    for (const auto u : units) hash = (hash ^ u) * 0x100'0000'01B3U;
    return hash;
}

std::shared_ptr<const HfTokenizer> load(const char* path) {
    auto loaded = HfTokenizer::load(read_file(path), {});
    if (!loaded) throw std::runtime_error(loaded.error().message);
    return *loaded;
}

void encode_prompt(const HfTokenizer& tokenizer, std::string_view text, std::vector<TokenId>& ids) {
    ids.clear();
    if (auto ok = tokenizer.encode(text, SpecialTokens::kParse, false, ids); !ok) {
        throw std::runtime_error(ok.error().message);
    }
}

void encode(const char* file, const char* path, std::size_t size) {
    const auto tokenizer = load(file);
    const std::string text = read_file(path);
    const auto parts = prompts(text, size);
    std::vector<TokenId> ids;
    encode_prompt(*tokenizer, "a", ids);
    std::size_t tokens = 0;
    double begin = cpu();
    for (const auto p : parts) {
        encode_prompt(*tokenizer, p, ids);
        tokens += ids.size();
    }
    const double cold = cpu() - begin;
    begin = cpu();
    for (int i = 0; i < kWarmRounds; ++i) {
        for (const auto p : parts) encode_prompt(*tokenizer, p, ids);
    }
    const double warm = (cpu() - begin) / kWarmRounds;
    std::uint64_t hash = kDigestStart;
    for (const auto p : parts) {
        encode_prompt(*tokenizer, p, ids);
        hash = digest(ids, hash);
    }
    fmt::print(R"({{"bytes": {}, "tokens": {}, "cold": {}, "warm": {}, "digest": "{}", "engine": )"
               R"("{}"}})"
               "\n",
               text.size(), tokens, cold, warm, hash, tokenizer->engine());
}

/// Of the kinds that clients send.
std::vector<std::string> stop_strings() {
    return {"\nUser:", "<|im_end|>", "\n\n\n\n\n", "###END"};
}

void decode(const char* file, const char* path) {
    const auto tokenizer = load(file);
    const std::string text = read_file(path);
    std::vector<TokenId> ids;
    encode_prompt(*tokenizer, text, ids);
    double best = 1e9;
    double best_plain = 1e9;
    double best_parsed = 1e9;
    std::string out;
    stator::text::OutputEvents events;
    for (int i = 0; i < 10; ++i) {
        for (const bool stops : {true, false}) {
            std::vector<std::string> stop;
            if (stops) stop = stop_strings();
            stator::text::Detokenizer detokenizer(*tokenizer, stop);
            const double begin = cpu();
            for (const TokenId id : ids) {
                // The frontend takes the text of every step away.
                out.clear();
                if (detokenizer.push(id, out)) throw std::runtime_error("stopped");
            }
            double& least = stops ? best : best_plain;
            least = std::min(least, cpu() - begin);
        }
        stator::text::OutputParserOptions options;
        options.format = {"hermes", "qwen3"};
        const auto parser = stator::text::make_output_parser(std::move(options));
        if (!parser) throw std::runtime_error(parser.error().message);
        stator::text::Detokenizer detokenizer(*tokenizer, stop_strings(),
                                              stator::text::ControlTokens::kSpelled);
        const double begin = cpu();
        for (const TokenId id : ids) {
            out.clear();
            events.clear();
            if (detokenizer.push(id, out)) throw std::runtime_error("stopped");
            (*parser)->push(out, events);
        }
        best_parsed = std::min(best_parsed, cpu() - begin);
    }
    fmt::print(R"({{"tokens": {}, "seconds": {}, "plain_seconds": {}, "parsed_seconds": {}}})"
               "\n",
               ids.size(), best, best_plain, best_parsed);
}

void render(const char* source, const char* context_path) {
    const std::string context = read_file(context_path);
    auto compiled = stator::text::ChatTemplate::compile(read_file(source), "<s>", "</s>");
    if (!compiled) throw std::runtime_error(compiled.error().message);
    const auto once = [&] {
        auto text = compiled->render(context, 1'721'952'000);
        if (!text) throw std::runtime_error(text.error().message);
        return *std::move(text);
    };
    // As in a server that has run for a while: glibc keeps what a prompt took.
    auto* block = static_cast<volatile char*>(std::malloc(8U << 20));
    block[0] = 1;
    std::free(const_cast<char*>(block));
    const std::string text = once();
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
        constexpr int kTimes = 200;
        const double begin = cpu();
        for (int k = 0; k < kTimes; ++k) (void)once();
        best = std::min(best, (cpu() - begin) / kTimes);
    }
    std::vector<unsigned char> bytes(text.begin(), text.end());
    fmt::print(R"({{"bytes": {}, "seconds": {}, "digest": "{}"}})"
               "\n",
               text.size(), best, digest(bytes, kDigestStart));
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string_view mode = argc > 1 ? argv[1] : "";
    if (mode == "encode" && argc == 5) {
        encode(argv[2], argv[3], std::stoul(argv[4]));
    } else if (mode == "decode" && argc == 4) {
        decode(argv[2], argv[3]);
    } else if (mode == "template" && argc == 4) {
        render(argv[2], argv[3]);
    } else {
        fmt::print(stderr, "usage: bench_text encode|decode|template …\n");
        return 2;
    }
    return 0;
} catch (const std::exception& e) {
    fmt::print(stderr, "bench_text: {}\n", e.what());
    return 1;
}
