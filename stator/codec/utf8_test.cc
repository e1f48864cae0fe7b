#include "stator/codec/utf8.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>
#include <vector>

namespace stator::codec {
namespace {

std::string lossy(std::string_view text) {
    std::string out;
    utf8_append_lossy(out, text);
    return out;
}

/// Encodes by the definition, for any number up to 0x10FFFF.
std::string encode(char32_t c) {
    const auto tail = [](char32_t bits) { return static_cast<char>(0x80 | (bits & 0x3F)); };
    if (c < 0x80) return {static_cast<char>(c)};
    if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), tail(c)};
    if (c < 0x10000) return {static_cast<char>(0xE0 | c >> 12), tail(c >> 6), tail(c)};
    return {static_cast<char>(0xF0 | c >> 18), tail(c >> 12), tail(c >> 6), tail(c)};
}

// --- a naive oracle: the set of all characters, and of all their beginnings
// ------------------------------------------

struct Oracle {
    std::set<std::string, std::less<>> characters;
    std::set<std::string, std::less<>> beginnings;  // proper, not empty
    Oracle() {
        for (char32_t c = 0; c <= 0x10FFFF; ++c) {
            if (c >= 0xD800 && c <= 0xDFFF) continue;
            const std::string s = encode(c);
            // Third and fourth bytes are free of the others: a few stand for all.
            const bool edge = (c & 0x3F) == 0 || (c & 0x3F) == 0x3F || (c & 0x3F) == 0x15;
            if (s.size() >= 3 && !edge) continue;
            for (std::size_t n = 1; n < s.size(); ++n) beginnings.insert(s.substr(0, n));
            characters.insert(s);
        }
    }
};

const Oracle& oracle() {
    static const Oracle instance;
    return instance;
}

/// Length of the character at the front, or 0.
std::size_t naive_character(std::string_view s) {
    for (std::size_t n = 1; n <= 4 && n <= s.size(); ++n) {
        if (oracle().characters.contains(s.substr(0, n))) return n;
    }
    return 0;
}

std::size_t naive_beginning(std::string_view s) {
    std::size_t longest = 0;
    for (std::size_t n = 1; n <= 3 && n <= s.size(); ++n) {
        if (oracle().beginnings.contains(s.substr(0, n))) longest = n;
    }
    return longest;
}

std::size_t naive_valid_prefix(std::string_view s) {
    std::size_t at = 0;
    while (at < s.size()) {
        const std::size_t n = naive_character(s.substr(at));
        if (n == 0) return at;
        at += n;
    }
    return at;
}

std::string naive_lossy(std::string_view s) {
    std::string out;
    while (!s.empty()) {
        std::size_t n = naive_character(s);
        if (n > 0) {
            out += s.substr(0, n);
        } else {
            out += "\xEF\xBF\xBD";
            n = std::max<std::size_t>(1, naive_beginning(s));
        }
        s.remove_prefix(n);
    }
    return out;
}

/// The shortest tail that, decoded from the front, is an unfinished character at the very end.
std::size_t naive_complete_prefix(std::string_view s) {
    for (std::size_t back = 3; back >= 1; --back) {
        if (back <= s.size() && oracle().beginnings.contains(s.substr(s.size() - back))) {
            return s.size() - back;
        }
    }
    return s.size();
}

/// Characters, their beginnings, stray bytes: whatever meets at a border. Continuation bytes are
/// those of the oracle.
std::string random_bytes() {
    static const std::vector<std::string> kParts = {
        "a",        "plain text", "\x7f",     "\xC2\x80", "\xDF\xBF",     "\xE0\xA0\x80",
        "\xE0\x9F", "\xED\x9F",   "\xED\xA0", "\xEF\xBF", "\xEF\xBF\xBF", "\xF0\x90\x80\x80",
        "\xF0\x8F", "\xF4\x8F",   "\xF4\x90", "\xF5",     "\xC0",         "\xC1",
        "\x80",     "\xBF",       "\x95",     "\xC3",     "\xE2",         "\xF1",
        "\xFF",     "\xFE",       "\xF1\x80", "\xE1\xBF", "\xF4",         "\xF0",
        "\xE0",     "\xED"};
    std::string s;
    const int n = *rc::gen::inRange(0, 12);
    for (int i = 0; i < n; ++i) s += *rc::gen::elementOf(kParts);
    return s;
}

RC_GTEST_PROP(Utf8Property, AgreesWithTheOracle, ()) {
    const std::string s = random_bytes();
    RC_ASSERT(utf8_valid_prefix(s) == naive_valid_prefix(s));
    RC_ASSERT(utf8_valid(s) == (naive_valid_prefix(s) == s.size()));
    RC_ASSERT(lossy(s) == naive_lossy(s));
    RC_ASSERT(utf8_valid(lossy(s)));
    RC_ASSERT(utf8_complete_prefix(s) == naive_complete_prefix(s));
}

/// How tokens are streamed: pieces are held back until they are whole, and what comes out is what a
/// reader of the whole text would see.
RC_GTEST_PROP(Utf8Property, PassingOnInPiecesLosesNothing, ()) {
    const std::string s = random_bytes();
    std::string out;
    std::string held;
    for (std::size_t at = 0; at < s.size();) {
        const auto n = *rc::gen::inRange<std::size_t>(1, 4);
        held += s.substr(at, n);
        at += n;
        const std::size_t whole = utf8_complete_prefix(held);
        RC_ASSERT(held.size() - whole <= 3U);
        utf8_append_lossy(out, std::string_view(held).substr(0, whole));
        held.erase(0, whole);
    }
    utf8_append_lossy(out, held);
    RC_ASSERT(out == lossy(s));
}

TEST(Utf8, EveryCharacterIsValidAndNothingElseLooksLikeOne) {
    for (char32_t c = 0; c <= 0x10FFFF; ++c) {
        const std::string s = encode(c);
        const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
        ASSERT_EQ(utf8_valid(s), !surrogate) << static_cast<unsigned>(c);
        if (!surrogate) ASSERT_EQ(utf8_complete_prefix(s.substr(0, s.size() - 1)), 0U);
    }
    // All pairs of bytes: 128 * 128 ASCII and the 1920 characters of two bytes.
    int valid = 0;
    for (int a = 0; a < 256; ++a) {
        for (int b = 0; b < 256; ++b) {
            valid += utf8_valid(std::string{static_cast<char>(a), static_cast<char>(b)}) ? 1 : 0;
        }
    }
    EXPECT_EQ(valid, 128 * 128 + 1920);
}

TEST(Utf8, TheStandardsExamplesOfReplacement) {
    // The Unicode Standard, 3.9, tables 3-8 to 3-11.
    const std::string r = "\xEF\xBF\xBD";
    EXPECT_EQ(lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
    EXPECT_EQ(lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
    EXPECT_EQ(lossy("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
    EXPECT_EQ(lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, FaultsAreFoundAtEveryPlace) {
    for (std::size_t before = 0; before < 20; ++before) {
        const std::string left(before, 'a');
        EXPECT_EQ(utf8_valid_prefix(left + "\xFF" + "bbbbbbbbbb"), before);
        EXPECT_EQ(utf8_valid_prefix(left + "\xE2\x82"), before);
        EXPECT_EQ(utf8_complete_prefix(left + "\xE2\x82"), before);
        EXPECT_EQ(utf8_complete_prefix(left + "\xE2\x82\xAC"), before + 3);
    }
    EXPECT_TRUE(utf8_valid(""));
    EXPECT_EQ(utf8_complete_prefix(""), 0U);
    EXPECT_EQ(utf8_complete_prefix("\x80\x80\x80\x80"), 4U);
}

}  // namespace
}  // namespace stator::codec
