// tokenize TOKENIZER.json
//     Answers requests on standard input until it ends. A request is a letter, a length (four
//     bytes, little-endian) and so many bytes:
//       p  the tokens of a text, special tokens parsed
//       t  the tokens of a text, special tokens as text
//       m  the tokens of a text that goes on where another ended, special tokens parsed
//       b  as p, with what the model wants in front of a text
//       d  the text of tokens (four bytes each), which begin it
//     An answer is a length and so many bytes: tokens, or a text; for what can't be done, length
//     0xFFFFFFFF, a second length and a message.
// tokenize --facts TOKENIZER.json
//     Prints, as JSON, the engine, the time to load and the memory that stays.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/model/hf_tokenizer.h"
#include "stator/text/detokenizer.h"

namespace {

using stator::model::HfTokenizer;
using stator::text::SpecialTokens;
using stator::text::TokenId;

std::string read_file(const char* path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool read_all(void* to, std::size_t size) { return std::fread(to, 1, size, stdin) == size; }

void write_all(const void* from, std::size_t size) {
    const auto length = static_cast<std::uint32_t>(size);
    std::fwrite(&length, sizeof length, 1, stdout);
    std::fwrite(from, 1, size, stdout);
}

void refuse(std::string_view message) {
    const std::uint32_t mark = 0xFFFFFFFF;
    std::fwrite(&mark, sizeof mark, 1, stdout);
    write_all(message.data(), message.size());
}

void decode(const HfTokenizer& tokenizer, std::string_view ids) {
    stator::text::Detokenizer detokenizer(tokenizer, {}, stator::text::ControlTokens::kHidden,
                                          true);
    std::string text;
    for (std::size_t i = 0; i + 4 <= ids.size(); i += 4) {
        TokenId id = 0;
        std::memcpy(&id, ids.data() + i, sizeof id);
        detokenizer.push(id, text);
    }
    detokenizer.finish(text);
    write_all(text.data(), text.size());
}

void encode(const HfTokenizer& tokenizer, char letter, std::string_view text) {
    const auto special = letter == 't' ? SpecialTokens::kAsText : SpecialTokens::kParse;
    std::vector<TokenId> ids;
    const auto done = letter == 'm' ? tokenizer.encode_more(text, special, ids)
                                    : tokenizer.encode(text, special, letter == 'b', ids);
    if (!done) return refuse(done.error().message);
    write_all(ids.data(), ids.size() * sizeof(TokenId));
}

void serve(const HfTokenizer& tokenizer) {
    std::string body;
    for (;;) {
        char letter = 0;
        std::uint32_t size = 0;
        if (!read_all(&letter, 1) || !read_all(&size, sizeof size)) return;
        body.resize(size);
        if (!read_all(body.data(), size)) return;
        if (letter == 'd') {
            decode(tokenizer, body);
        } else {
            encode(tokenizer, letter, body);
        }
        std::fflush(stdout);
    }
}

/// A line "Name:  123 kB" of /proc/self/status, in MiB.
double status_mib(std::string_view name) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with(name)) return std::stod(line.substr(name.size() + 1)) / 1024;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const bool facts = argc == 3 && std::string_view(argv[1]) == "--facts";
    if (argc != 2 && !facts) {
        fmt::print(stderr, "usage: tokenize [--facts] TOKENIZER.json\n");
        return 2;
    }
    std::string json = read_file(argv[argc - 1]);
    const double before = status_mib("VmRSS");
    const auto begin = stator::Clock::real().now();
    auto loaded = HfTokenizer::load(json, {});
    const auto end = stator::Clock::real().now();
    if (!loaded) {
        fmt::print(stderr, "{}\n", loaded.error().message);
        return 1;
    }
    json.clear();
    json.shrink_to_fit();
    const HfTokenizer& tokenizer = **loaded;
    if (facts) {
        fmt::print(
            "{{\"engine\": \"{}\", \"tokens\": {}, \"load_seconds\": {:.3f}, \"rss_mib\": "
            "{:.1f}, \"grown_mib\": {:.1f}, \"peak_mib\": {:.1f}}}\n{}\n",
            tokenizer.engine(), tokenizer.vocab_size(), stator::to_seconds(end - begin),
            status_mib("VmRSS"), status_mib("VmRSS") - before, status_mib("VmHWM"),
            tokenizer.describe());
        return 0;
    }
    serve(tokenizer);
    return 0;
}
