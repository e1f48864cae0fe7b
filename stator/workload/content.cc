#include "stator/workload/content.h"

#include <algorithm>
#include <array>

namespace stator::workload {
namespace {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ULL;

/// Eight draws of eight bits for one mixing.
std::uint64_t draws(std::uint64_t content, std::uint64_t eighth) {
    return mix(content + kStep * (eighth + 1));
}

constexpr std::array<std::string_view, 256> kWords{
    "the",    "of",      "and",    "to",     "in",       "is",      "that",    "it",
    "was",    "for",     "on",     "are",    "as",       "with",    "his",     "they",
    "at",     "be",      "this",   "have",   "from",     "or",      "one",     "had",
    "by",     "word",    "but",    "not",    "what",     "all",     "were",    "we",
    "when",   "your",    "can",    "said",   "there",    "use",     "an",      "each",
    "which",  "she",     "do",     "how",    "their",    "if",      "will",    "up",
    "other",  "about",   "out",    "many",   "then",     "them",    "these",   "so",
    "some",   "her",     "would",  "make",   "like",     "him",     "into",    "time",
    "has",    "look",    "two",    "more",   "write",    "go",      "see",     "number",
    "no",     "way",     "could",  "people", "my",       "than",    "first",   "water",
    "been",   "call",    "who",    "oil",    "its",      "now",     "find",    "long",
    "down",   "day",     "did",    "get",    "come",     "made",    "may",     "part",
    "over",   "new",     "sound",  "take",   "only",     "little",  "work",    "know",
    "place",  "year",    "live",   "me",     "back",     "give",    "most",    "very",
    "after",  "thing",   "our",    "just",   "name",     "good",    "man",     "think",
    "say",    "great",   "where",  "help",   "through",  "much",    "before",  "line",
    "right",  "too",     "mean",   "old",    "any",      "same",    "tell",    "boy",
    "follow", "came",    "want",   "show",   "also",     "around",  "form",    "three",
    "small",  "set",     "put",    "end",    "does",     "another", "well",    "large",
    "must",   "big",     "even",   "such",   "because",  "turn",    "here",    "why",
    "ask",    "went",    "men",    "read",   "need",     "land",    "home",    "us",
    "move",   "try",     "kind",   "hand",   "picture",  "again",   "change",  "off",
    "play",   "spell",   "air",    "away",   "animal",   "house",   "point",   "page",
    "letter", "mother",  "answer", "found",  "study",    "still",   "learn",   "should",
    "world",  "high",    "every",  "near",   "add",      "food",    "between", "own",
    "below",  "country", "plant",  "last",   "school",   "father",  "keep",    "tree",
    "never",  "start",   "city",   "earth",  "eye",      "light",   "thought", "head",
    "under",  "story",   "saw",    "left",   "few",      "while",   "along",   "might",
    "close",  "seem",    "next",   "hard",   "open",     "example", "begin",   "life",
    "always", "those",   "both",   "paper",  "together", "got",     "group",   "often",
    "run",    "river",   "car",    "feet",   "care",     "second",  "book",    "carry",
    "took",   "science", "eat",    "room",   "friend",   "began",   "idea",    "fish"};

void append_u32(std::string& out, std::uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(v >> shift));
}

std::uint32_t crc32(std::string_view bytes) {
    std::uint32_t crc = ~0U;
    for (const char c : bytes) {
        crc ^= static_cast<std::uint8_t>(c);
        for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0xedb88320U & (0U - (crc & 1U)));
    }
    return ~crc;
}

void append_chunk(std::string& png, std::string_view type, std::string_view data) {
    append_u32(png, static_cast<std::uint32_t>(data.size()));
    std::string body(type);
    body += data;
    png += body;
    append_u32(png, crc32(body));
}

/// zlib's container around blocks that are not compressed (RFC 1950, 1951).
std::string store_zlib(std::string_view raw) {
    constexpr std::size_t kBlock = 65'535;
    std::string out("\x78\x01", 2);
    std::uint32_t a = 1;
    std::uint32_t b = 0;
    for (std::size_t at = 0; at < raw.size(); at += kBlock) {
        const std::string_view block = raw.substr(at, kBlock);
        const auto n = static_cast<std::uint16_t>(block.size());
        out.push_back(at + kBlock >= raw.size() ? '\1' : '\0');
        out.push_back(static_cast<char>(n & 255));
        out.push_back(static_cast<char>(n >> 8));
        out.push_back(static_cast<char>(~n & 255));
        out.push_back(static_cast<char>((~n >> 8) & 255));
        out += block;
    }
    for (const char c : raw) {
        a = (a + static_cast<std::uint8_t>(c)) % 65'521;
        b = (b + a) % 65'521;
    }
    append_u32(out, (b << 16) | a);
    return out;
}

}  // namespace

std::uint64_t content_id(std::uint64_t kind, std::uint64_t a, std::uint64_t b) {
    return mix(mix(mix(kind + kStep) + a) + kStep * (b + 1));
}

void append_tokens(std::vector<tokens::TokenId>& out, const Segment& segment, TokenRange range) {
    const std::size_t begin = out.size();
    out.resize(begin + segment.tokens);
    tokens::TokenId* to = out.data() + begin;
    for (std::uint32_t done = 0; done < segment.tokens; done += 8) {
        std::uint64_t bits = draws(segment.content, done / 8);
        const std::uint32_t n = std::min(segment.tokens - done, 8U);
        for (std::uint32_t i = 0; i < n; ++i, bits >>= 8) {
            const auto draw = static_cast<std::uint32_t>(bits & 255);
            *to++ = range.first + ((draw * range.count) >> 8);
        }
    }
}

void append_words(std::string& out, std::uint64_t content, std::uint32_t words) {
    for (std::uint32_t done = 0; done < words; done += 8) {
        std::uint64_t bits = draws(content, done / 8);
        const std::uint32_t n = std::min(words - done, 8U);
        for (std::uint32_t i = 0; i < n; ++i, bits >>= 8) {
            out += kWords[bits & 255];
            out.push_back(' ');
        }
    }
}

std::string make_png(const ImageSpec& image) {
    // 8 bits a pixel over a palette: a byte each, and tiles that differ between contents.
    std::string palette;
    for (std::uint64_t i = 0; i < 256; ++i) {
        const std::uint64_t colour = mix(image.content + kStep * i);
        for (int c = 0; c < 3; ++c) palette.push_back(static_cast<char>(colour >> (8 * c)));
    }
    std::string raw;
    raw.reserve(std::size_t{image.height} * (image.width + 1));
    constexpr std::uint32_t kTile = 16;
    for (std::uint32_t y = 0; y < image.height; ++y) {
        raw.push_back('\0');  // no filter
        for (std::uint32_t x = 0; x < image.width; ++x) {
            const std::uint64_t tile = (std::uint64_t{y / kTile} << 32) + x / kTile;
            raw.push_back(static_cast<char>(mix(image.content ^ mix(tile))));
        }
    }
    std::string png("\x89PNG\r\n\x1a\n", 8);
    std::string head;
    append_u32(head, image.width);
    append_u32(head, image.height);
    head += std::string("\x08\x03\x00\x00\x00", 5);  // 8 bits, palette
    append_chunk(png, "IHDR", head);
    append_chunk(png, "PLTE", palette);
    append_chunk(png, "IDAT", store_zlib(raw));
    append_chunk(png, "IEND", "");
    return png;
}

}  // namespace stator::workload
