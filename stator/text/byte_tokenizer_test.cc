#include "stator/text/byte_tokenizer.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

namespace stator::text {
namespace {

std::vector<TokenId> encode(const ByteTokenizer& t, std::string_view text, SpecialTokens special) {
    std::vector<TokenId> ids;
    EXPECT_TRUE(t.encode(text, special, true, ids).has_value());
    return ids;
}

TEST(ByteTokenizer, EveryByteIsItsOwnToken) {
    EXPECT_TRUE(rc::check([](const std::string& text) {
        const ByteTokenizer t;
        const auto ids = encode(t, text, SpecialTokens::kAsText);
        std::string back;
        for (const TokenId id : ids) back += t.bytes(id);
        RC_ASSERT(ids.size() == text.size());
        RC_ASSERT(back == text);
    }));
}

TEST(ByteTokenizer, SpecialTokensAreReadOnlyWhenAskedFor) {
    const ByteTokenizer t({"<|im_start|>", "<|im_end|>"});
    EXPECT_EQ(encode(t, "<|im_start|>a<|im_end|><|end|>", SpecialTokens::kParse),
              (std::vector<TokenId>{257, 'a', 258, ByteTokenizer::kEnd}));
    EXPECT_EQ(encode(t, "<|im_end|>", SpecialTokens::kAsText).size(), 10U);
}

TEST(ByteTokenizer, TheLongestSpecialTextWins) {
    const ByteTokenizer t({"<a", "<a>b", "<a>"});
    EXPECT_EQ(encode(t, "<a>b<a><a<", SpecialTokens::kParse),
              (std::vector<TokenId>{258, 259, 257, '<'}));
    for (std::size_t i = 1; i < t.special_texts().size(); ++i) {
        EXPECT_GE(t.special_texts()[i - 1].size(), t.special_texts()[i].size());
    }
}

TEST(ByteTokenizer, AppendsAndKnowsItsVocabulary) {
    const ByteTokenizer t({"<s>"});
    std::vector<TokenId> ids{7};
    ASSERT_TRUE(t.encode("x", SpecialTokens::kParse, false, ids).has_value());
    EXPECT_EQ(ids, (std::vector<TokenId>{7, 'x'}));
    EXPECT_EQ(t.vocab_size(), 258U);
    EXPECT_EQ(t.spelling('A'), "A");
    EXPECT_EQ(t.spelling('\n'), "<0x0A>");
    EXPECT_EQ(t.spelling(257), "<s>");
    EXPECT_EQ(t.bytes(257), "");
    EXPECT_EQ(t.bytes(258), "");
    EXPECT_EQ(t.spelling(258), "");
    EXPECT_TRUE(t.is_control(ByteTokenizer::kEnd));
    EXPECT_TRUE(t.is_control(257));
    EXPECT_FALSE(t.is_control(255));
    EXPECT_FALSE(t.is_control(258));
    EXPECT_TRUE(t.is_end(ByteTokenizer::kEnd));
    EXPECT_FALSE(t.is_end(257));
}

}  // namespace
}  // namespace stator::text
