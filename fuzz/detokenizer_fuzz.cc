// Any bytes, cut into any tokens, against stop strings that the input brings along: the text must
// be that of all bytes at once up to the stop string that is complete first.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "stator/codec/utf8.h"
#include "stator/text/detokenizer.h"

namespace {

using stator::text::SpecialTokens;
using stator::text::TokenId;

/// Token i is pieces[i].
class Pieces final : public stator::text::Tokenizer {
  public:
    std::vector<std::string> pieces;

    [[nodiscard]] stator::Result<void> encode(std::string_view, SpecialTokens, bool,
                                              std::vector<TokenId>&) const override {
        return {};
    }
    [[nodiscard]] std::uint32_t vocab_size() const override {
        return static_cast<std::uint32_t>(pieces.size());
    }
    [[nodiscard]] std::string_view bytes(TokenId token) const override { return pieces[token]; }
    [[nodiscard]] std::string_view spelling(TokenId token) const override { return bytes(token); }
    [[nodiscard]] bool is_control(TokenId) const override { return false; }
    [[nodiscard]] bool is_end(TokenId) const override { return false; }
    [[nodiscard]] std::span<const std::string> special_texts() const override { return {}; }
};

struct Input {
    const std::uint8_t* data;
    std::size_t size;

    std::string take(std::size_t count) {
        count = std::min(count, size);
        std::string out(reinterpret_cast<const char*>(data), count);
        data += count;
        size -= count;
        return out;
    }
    std::size_t number(std::size_t bound) {
        if (size == 0) return 0;
        --size;
        return *data++ % bound;
    }
};

void check(bool good) {
    if (!good) std::abort();
}

/// Where the stop string that is complete first ends, and which it is; the longest of several.
int first_stop(const std::string& text, const std::vector<std::string>& stops, std::size_t& begin) {
    int found = -1;
    std::size_t best_end = std::string::npos;
    for (std::size_t s = 0; s < stops.size(); ++s) {
        const std::size_t at = stops[s].empty() ? std::string::npos : text.find(stops[s]);
        if (at == std::string::npos) continue;
        const std::size_t end = at + stops[s].size();
        if (end > best_end || (end == best_end && at >= begin)) continue;
        best_end = end;
        begin = at;
        found = static_cast<int>(s);
    }
    return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input{data, size};
    std::vector<std::string> stops;
    for (std::size_t n = input.number(5); n > 0; --n) {
        // Stop strings are text: they come from JSON.
        stator::codec::utf8_append_lossy(stops.emplace_back(), input.take(input.number(8)));
    }
    Pieces tokenizer;
    std::string all;
    while (input.size > 0) {
        tokenizer.pieces.push_back(input.take(input.number(7)));
        all += tokenizer.pieces.back();
    }
    stator::text::Detokenizer detokenizer(tokenizer, stops);
    std::string out;
    for (TokenId i = 0; i < tokenizer.pieces.size(); ++i) {
        const bool stopped = detokenizer.push(i, out);
        check(stator::codec::utf8_valid(out));
        if (stopped) break;
    }
    detokenizer.finish(out);
    std::string expected;
    stator::codec::utf8_append_lossy(expected, all);
    std::size_t begin = std::string::npos;
    const int stop = first_stop(expected, stops, begin);
    if (stop >= 0) expected.resize(begin);
    check(out == expected);
    check((detokenizer.stop_index() >= 0) == (stop >= 0));
    return 0;
}
