#include "stator/text/detokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

#include "stator/codec/utf8.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::text {
namespace {

/// Tokens that stand for any bytes: token i is pieces[i].
class PieceTokenizer final : public Tokenizer {
  public:
    explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}

    [[nodiscard]] Result<void> encode(std::string_view, SpecialTokens, bool,
                                      std::vector<TokenId>&) const override {
        return error(ErrorCode::kUnsupported, "only decodes");
    }
    [[nodiscard]] std::uint32_t vocab_size() const override {
        return static_cast<std::uint32_t>(pieces_.size());
    }
    [[nodiscard]] std::string_view bytes(TokenId token) const override {
        return token < pieces_.size() ? std::string_view(pieces_[token]) : std::string_view{};
    }
    [[nodiscard]] std::string_view spelling(TokenId token) const override { return bytes(token); }
    [[nodiscard]] bool is_control(TokenId) const override { return false; }
    [[nodiscard]] bool is_end(TokenId) const override { return false; }
    [[nodiscard]] std::span<const std::string> special_texts() const override { return {}; }

  private:
    std::vector<std::string> pieces_;
};

struct Outcome {
    std::string text;
    int stop = -1;

    bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& o) {
    return out << '"' << o.text << "\" stopped by " << o.stop;
}

/// The whole text at once, and the plain search for what the detokenizer finds on the way: the stop
/// string that is complete first, the longest of those that end together.
Outcome oracle(std::string_view bytes, const std::vector<std::string>& stops) {
    Outcome outcome;
    codec::utf8_append_lossy(outcome.text, bytes);
    std::size_t best_end = std::string::npos;
    for (std::size_t s = 0; s < stops.size(); ++s) {
        if (stops[s].empty()) continue;
        const std::size_t at = outcome.text.find(stops[s]);
        if (at == std::string::npos) continue;
        const std::size_t end = at + stops[s].size();
        const bool longer = end == best_end && outcome.stop >= 0 &&
                            stops[s].size() > stops[static_cast<std::size_t>(outcome.stop)].size();
        if (end < best_end || longer) {
            best_end = end;
            outcome.stop = static_cast<int>(s);
        }
    }
    if (outcome.stop >= 0) {
        outcome.text.resize(best_end - stops[static_cast<std::size_t>(outcome.stop)].size());
    }
    return outcome;
}

Outcome detokenize(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
    const PieceTokenizer tokenizer(pieces);
    Detokenizer d(tokenizer, stops);
    Outcome outcome;
    for (TokenId i = 0; i < pieces.size(); ++i) {
        const std::string before = outcome.text;
        const bool stopped = d.push(i, outcome.text);
        EXPECT_TRUE(outcome.text.starts_with(before)) << "what was given out is changed";
        EXPECT_TRUE(codec::utf8_valid(outcome.text)) << "half a character is given out";
        EXPECT_EQ(stopped, d.stop_index() >= 0);
        if (stopped) break;
    }
    d.finish(outcome.text);
    outcome.stop = d.stop_index();
    return outcome;
}

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size();) {
        const auto size = *rc::gen::inRange<std::size_t>(1, 6);
        pieces.push_back(text.substr(at, size));
        at += pieces.back().size();
    }
    return pieces;
}

/// Text of few different characters of one to four bytes, so that stop strings are met often.
rc::Gen<std::string> dense_text() {
    return rc::gen::map(rc::gen::container<std::vector<std::string>>(
                            rc::gen::elementOf(std::vector<std::string>{"a", "b", "é", "€", "😀"})),
                        [](const std::vector<std::string>& characters) {
                            std::string text;
                            for (const std::string& c : characters) text += c;
                            return text;
                        });
}

TEST(Detokenizer, AnySplitOfAnyBytesGivesTheSameText) {
    EXPECT_TRUE(rc::check([](const std::string& bytes) {
        RC_ASSERT(detokenize(split(bytes), {}) == oracle(bytes, {}));
    }));
    EXPECT_TRUE(rc::check("bytes of UTF-8's lead and tail ranges", [] {
        const auto bytes = *rc::gen::container<std::string>(
            rc::gen::map(rc::gen::elementOf(std::vector<int>{0x41, 0x80, 0xA0, 0xBF, 0xC3, 0xE0,
                                                             0xE2, 0xED, 0xF0, 0xF4, 0xFF}),
                         [](int b) { return static_cast<char>(b); }));
        RC_ASSERT(detokenize(split(bytes), {}) == oracle(bytes, {}));
        RC_ASSERT(detokenize(split(bytes), {"A\uFFFD"}) == oracle(bytes, {"A\uFFFD"}));
    }));
}

TEST(Detokenizer, StopStringsAreFoundOverAnyTokenBorder) {
    EXPECT_TRUE(rc::check([] {
        const std::string text = *dense_text();
        const auto stops =
            *rc::gen::resize(6, rc::gen::container<std::vector<std::string>>(dense_text()));
        const auto expected = oracle(text, stops);
        RC_CLASSIFY(expected.stop >= 0, "stopped");
        RC_ASSERT(detokenize(split(text), stops) == expected);
    }));
}

TEST(Detokenizer, HoldsBackNoMoreThanMayBecomeAStop) {
    const ByteTokenizer tokenizer;
    Detokenizer d(tokenizer, {"</tool>"});
    std::string out;
    for (const char c : std::string("a <b </too")) d.push(static_cast<unsigned char>(c), out);
    EXPECT_EQ(out, "a <b ");
    EXPECT_FALSE(d.push('x', out));
    EXPECT_EQ(out, "a <b </toox");
    for (const char c : std::string("</tool")) d.push(static_cast<unsigned char>(c), out);
    EXPECT_TRUE(d.push('>', out));
    EXPECT_EQ(out, "a <b </toox");
    EXPECT_EQ(d.stop_index(), 0);
    EXPECT_TRUE(d.push('y', out)) << "nothing comes after a stop";
    d.finish(out);
    EXPECT_EQ(out, "a <b </toox");
}

TEST(Detokenizer, HalfCharactersWaitAndBecomeReplacementsAtTheEnd) {
    const ByteTokenizer tokenizer;
    Detokenizer d(tokenizer, {});
    std::string out;
    d.push(0xF0, out);
    d.push(0x9F, out);
    d.push(ByteTokenizer::kEnd, out);
    d.push(0x98, out);
    EXPECT_EQ(out, "");
    d.push(0x80, out);
    EXPECT_EQ(out, "😀");
    d.push(0xE2, out);
    d.push(0x82, out);
    d.finish(out);
    EXPECT_EQ(out, "😀\uFFFD");
}

TEST(Detokenizer, ControlTokensAreSpelledForParsersAlone) {
    const ByteTokenizer tokenizer({"<|channel|>"});
    const std::vector<TokenId> tokens = {'a', 257, 0xC3, 257, ByteTokenizer::kEnd, 'b'};
    const auto text = [&](ControlTokens control, std::vector<std::string> stop) {
        Detokenizer d(tokenizer, std::move(stop), control);
        std::string out;
        for (const TokenId t : tokens) {
            if (d.push(t, out)) return out;
        }
        d.finish(out);
        return out;
    };
    EXPECT_EQ(text(ControlTokens::kHidden, {}), "a\uFFFDb");
    EXPECT_EQ(text(ControlTokens::kSpelled, {}), "a<|channel|>\uFFFD<|channel|>b");
    EXPECT_EQ(text(ControlTokens::kSpelled, {"|><|"}), "a<|channel|>\uFFFD<|channel|>b");
    EXPECT_EQ(text(ControlTokens::kSpelled, {"nel"}), "a<|chan");
}

TEST(Detokenizer, TheFirstCompleteStopWinsThenTheLongest) {
    EXPECT_EQ(detokenize({"xabcd"}, {"abcd", "bc"}), (Outcome{"xa", 1}));
    EXPECT_EQ(detokenize({"xabc"}, {"bc", "abc"}), (Outcome{"x", 1}));
    EXPECT_EQ(detokenize({"xabc"}, {"", "abc", "abc"}), (Outcome{"x", 1}));
}

TEST(Detokenizer, LongRepeatingStopsCostConstantTimePerByte) {
    // 4 MB against a stop of 64 KB that nearly matches all the time: quadratic work would take
    // hours.
    const std::string stop = std::string(65536, 'a') + "b";
    const PieceTokenizer tokenizer({std::string(16, 'a')});
    Detokenizer d(tokenizer, {stop, stop + "c"});
    std::string out;
    for (int i = 0; i < 4 * 65536; ++i) ASSERT_FALSE(d.push(0, out));
    EXPECT_EQ(out.size(), 16U * 4 * 65536 - 65536);
    d.finish(out);
    EXPECT_EQ(out.size(), 16U * 4 * 65536);
}

}  // namespace
}  // namespace stator::text
