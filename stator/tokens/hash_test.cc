#include "stator/tokens/hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "stator/codec/json.h"
#include "stator/tokens/token_sequence.h"

namespace stator::tokens {
namespace {

using codec::JsonDocument;
using codec::JsonView;

// The constants in this file come from the Python package xxhash.
struct Golden {
    std::string_view lora;
    std::string_view name_space;
    std::uint64_t seed;
    std::uint64_t first;
    std::uint64_t second;
    std::uint64_t both;
};
constexpr Golden kGolden[] = {
    {"", "", 1337U, 3150965599177865312U, 1620620184010688666U, 17177624231074524414U},
    {"adapter", "", 15921763708947778582U, 7695474438526039744U, 12084882135514312424U,
     2588615669833303419U},
    {"", "tenant", 5412409220464433485U, 14648184826740493452U, 18204604241538224867U,
     7379171395587682497U},
    {"adapter", "tenant", 2887428855702659114U, 7225034297762440273U, 4827386960551212947U,
     11067251563849643056U},
};

TEST(Hash, GoldenConstants) {
    std::vector<TokenId> tokens;
    for (TokenId i = 0; i < 32; ++i) tokens.push_back(i * 7 + 1);
    const std::span all(tokens);
    for (const Golden& g : kGolden) {
        const std::uint64_t seed = hash_seed(g.lora, g.name_space);
        EXPECT_EQ(seed, g.seed);
        const BlockHash first = block_hash(all.first(16), seed);
        const BlockHash second = block_hash(all.last(16), seed);
        EXPECT_EQ(first.value, g.first);
        EXPECT_EQ(second.value, g.second);
        EXPECT_EQ(sequence_hash(first).value, g.first);
        EXPECT_EQ(sequence_hash(sequence_hash(first), second).value, g.both);
    }
    EXPECT_EQ(block_hash({}, 1337).value, 15128690059815094969U);
}

TEST(Hash, GoldenConstantsWithMedia) {
    const TokenId few[] = {1, 2, 3, 4};
    const std::uint64_t media[] = {5, (std::uint64_t{1} << 63) + 6};
    EXPECT_EQ(block_hash(few, 1337, media).value, 8677650250846949396U);
    std::vector<TokenId> many(512);
    std::iota(many.begin(), many.end(), 0U);
    const std::uint64_t small_media[] = {7, 9};
    EXPECT_EQ(block_hash(many, hash_seed("adapter", "tenant"), small_media).value,
              16922004407457533172U);
}

/// All sizes around the bounds of XXH3's branches, and those that are hashed by a loop of their
/// own.
TEST(BlockHasher, SameHashesAsOneByOne) {
    std::vector<TokenId> tokens(1200);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = static_cast<TokenId>(i) * 2654435761U;
    }
    for (const std::size_t size : {1UL, 3UL, 4UL, 5UL, 16UL, 17UL, 32UL, 33UL, 59UL, 60UL, 61UL,
                                   64UL, 128UL, 255UL, 257UL, 600UL}) {
        const std::uint64_t seed = hash_seed("", size % 2 == 0 ? "tenant" : "");
        const BlockHasher hasher(seed);
        const std::size_t count = tokens.size() / size;
        const auto whole = std::span(tokens).first(count * size);
        std::vector<BlockHash> blocks(count);
        std::vector<SequenceHash> sequences(count);
        hasher.chain(whole, size, nullptr, blocks.data(), sequences.data());
        for (std::size_t i = 0; i < count; ++i) {
            const BlockHash block = block_hash(whole.subspan(i * size, size), seed);
            ASSERT_EQ(blocks[i], block) << size << " tokens, block " << i;
            ASSERT_EQ(hasher.block(whole.subspan(i * size, size)), block);
            ASSERT_EQ(sequences[i],
                      i == 0 ? sequence_hash(block) : sequence_hash(sequences[i - 1], block));
        }
        // From the middle of the chain.
        std::vector<SequenceHash> rest(count - 1);
        hasher.chain(whole.subspan(size), size, sequences.data(), blocks.data(), rest.data());
        EXPECT_TRUE(std::ranges::equal(rest, std::span(sequences).subspan(1)));
        hasher.chain({}, size, nullptr, nullptr, nullptr);
    }
}

// --- the vectors made with the reference itself
// ----------------------------------------------------------------------

std::uint64_t number_of(JsonView view) {
    const std::string_view text = view.as_string().value_or("");
    std::uint64_t n = 0;
    const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
    EXPECT_TRUE(r.ec == std::errc() && r.ptr == text.data() + text.size()) << text;
    return n;
}

template <typename T, typename F>
std::vector<T> list_of(JsonView view, F f) {
    std::vector<T> list;
    view.each_element([&](std::size_t, JsonView item) {
        list.push_back(T(f(item)));
        return true;
    });
    return list;
}

std::vector<TokenId> tokens_of(JsonView item) {
    return list_of<TokenId>(item.find("tokens"), [](JsonView t) { return t.as_uint().value(); });
}

class GoldenVectors : public testing::Test {
  protected:
    void SetUp() override {
        const char* folder = std::getenv("STATOR_DATA");
        if (folder == nullptr || *folder == '\0') {
            GTEST_SKIP() << "Set STATOR_DATA to the folder with token_hash_vectors.json.";
        }
        std::ifstream file(std::string(folder) + "/token_hash_vectors.json");
        ASSERT_TRUE(file) << folder << " has no token_hash_vectors.json";
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        const auto root = document_.parse(text);
        ASSERT_TRUE(root) << root.error().message;
        root_ = *root;
    }

    JsonDocument document_;
    JsonView root_;
};

/// Speculative decoding: the same blocks, each hashed with one token more.
void check_windows_of_one_more(JsonView item, std::uint64_t seed) {
    const auto tokens = tokens_of(item);
    const std::size_t size = item.find("block_size").as_uint().value();
    std::vector<BlockHash> hashes;
    for (std::size_t at = 0; at + size + 1 <= tokens.size(); at += size) {
        hashes.push_back(block_hash(std::span(tokens).subspan(at, size + 1), seed));
    }
    EXPECT_EQ(hashes, list_of<BlockHash>(item.find("block_hashes"), number_of));
}

TEST_F(GoldenVectors, Text) {
    std::size_t checked = 0;
    root_.find("vectors").each_element([&](std::size_t i, JsonView item) {
        SCOPED_TRACE(i);
        const auto seed = hash_seed(item.find("lora").as_string().value_or(""),
                                    item.find("namespace").as_string().value_or(""));
        ++checked;
        if (item.find("eagle").as_bool().value()) {
            check_windows_of_one_more(item, seed);
            return true;
        }
        TokenSequence s(item.find("block_size").as_uint().value(), seed);
        s.append(tokens_of(item));
        EXPECT_TRUE(std::ranges::equal(s.block_hashes(),
                                       list_of<BlockHash>(item.find("block_hashes"), number_of)));
        EXPECT_TRUE(std::ranges::equal(
            s.sequence_hashes(), list_of<SequenceHash>(item.find("sequence_hashes"), number_of)));
        return true;
    });
    EXPECT_GE(checked, 19U);
}

TEST_F(GoldenVectors, Media) {
    std::size_t checked = 0;
    root_.find("media_vectors").each_element([&](std::size_t i, JsonView item) {
        SCOPED_TRACE(i);
        const auto tokens = tokens_of(item);
        const std::size_t size = item.find("block_size").as_uint().value();
        std::vector<BlockHash> hashes;
        item.find("media_hashes_per_block").each_element([&](std::size_t b, JsonView media_view) {
            auto media = list_of<std::uint64_t>(media_view, number_of);
            std::ranges::sort(media);
            hashes.push_back(
                block_hash(std::span(tokens).subspan(b * size, size), hash_seed(), media));
            return true;
        });
        EXPECT_EQ(hashes, list_of<BlockHash>(item.find("block_hashes"), number_of));
        ++checked;
        return true;
    });
    EXPECT_GE(checked, 2U);
}

TEST(MediaToken, NamesItemAndRow) {
    std::array<std::uint8_t, 32> a{};
    std::array<std::uint8_t, 32> b{};
    b[31] = 1;
    EXPECT_GE(media_token(a, 0), kFirstMediaToken);
    EXPECT_EQ(media_token(a, 7), media_token(a, 7));
    EXPECT_NE(media_token(a, 7), media_token(a, 8));
    EXPECT_NE(media_token(a, 7), media_token(b, 7));
}

}  // namespace
}  // namespace stator::tokens
