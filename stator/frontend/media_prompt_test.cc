#include "stator/frontend/media_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/frontend/chat_context.h"
#include "stator/tokens/hash.h"

namespace stator::frontend {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

EncodedItem item(std::uint8_t name, std::vector<protocol::MediaPiece> pieces, std::uint32_t rows) {
    EncodedItem out;
    out.digest[0] = name;
    auto handoff = std::make_shared<protocol::Handoff>();
    handoff->kind = protocol::Handoff::Kind::kEmbeddings;
    handoff->content = out.digest;
    handoff->tokens = rows;
    handoff->pieces = std::move(pieces);
    out.embeddings = std::move(handoff);
    return out;
}

TEST(MediaPrompt, SplitsAtTheTemplatesMark) {
    const MediaSplit split = split_at_mark("a<i>b<i>", "<i>");
    EXPECT_THAT(split.texts, ElementsAre("a", "b", ""));
    EXPECT_THAT(split.items, ElementsAre(0U, 1U));
    EXPECT_THAT(split_at_mark("a", "<i>").items, IsEmpty());
}

TEST(MediaPrompt, SplitsAtOurMarksInAnyOrder) {
    const std::string text = media_mark(1) + "x" + media_mark(0) + media_mark(12);
    const MediaSplit split = split_at_media_marks(text);
    EXPECT_THAT(split.texts, ElementsAre("", "x", "", ""));
    EXPECT_THAT(split.items, ElementsAre(1U, 0U, 12U));
    EXPECT_FALSE(names_each_once(split, 3));
    EXPECT_TRUE(names_each_once(split_at_media_marks(media_mark(1) + media_mark(0)), 2));
    EXPECT_FALSE(names_each_once(split_at_media_marks(media_mark(0) + media_mark(0)), 2));
    EXPECT_FALSE(names_each_once(split_at_media_marks(media_mark(0)), 2));
    // A template that cut one in the middle.
    const std::string cut = media_mark(0).substr(0, 4);
    EXPECT_FALSE(names_each_once(split_at_media_marks("a" + cut), 2));
}

TEST(MediaPrompt, PiecesAndRowsGoWhereTheItemStands) {
    const std::vector<tokens::TokenId> text = {1, 2, 3};
    const std::vector<MediaPlace> places = {{0, 1}, {2, 0}, {3, 2}};
    const std::vector<EncodedItem> items = {
        item(7, {{{50}, 0}, {{}, 2}, {{51, 52}, 0}, {{}, 1}}, 3), item(8, {{{}, 1}}, 1),
        item(7, {{{}, 1}}, 1)};
    EXPECT_EQ(tokens_with_media(3, items), 11U);
    const PromptWithMedia out = place_media(text, places, items);
    const auto row = [&](int i, std::uint32_t r) {
        return tokens::media_token(items[i].digest, r);
    };
    EXPECT_THAT(out.tokens, ElementsAre(row(1, 0), 1U, 2U, 50U, row(0, 0), row(0, 1), 51U, 52U,
                                        row(0, 2), 3U, row(2, 0)));
    ASSERT_EQ(out.media.size(), 3U);
    EXPECT_EQ(out.media[0].position, 0U);
    EXPECT_EQ(out.media[1].position, 3U);
    EXPECT_EQ(out.media[1].tokens, 6U);
    EXPECT_EQ(out.media[2].position, 10U);
    EXPECT_EQ(out.media[0].embeddings, items[1].embeddings);
}

TEST(MediaPrompt, EmbeddingsThatMakeNoSense) {
    EXPECT_TRUE(check_embeddings(item(1, {{{}, 2}, {{5}, 0}}, 2)));
    EXPECT_FALSE(check_embeddings(item(1, {{{}, 2}}, 3)));
    EXPECT_FALSE(check_embeddings(item(1, {{{5}, 0}}, 0)));
    EncodedItem other = item(1, {{{}, 2}}, 2);
    other.digest[0] = 2;
    EXPECT_FALSE(check_embeddings(other));
    EXPECT_FALSE(check_embeddings(EncodedItem{}));
}

}  // namespace
}  // namespace stator::frontend
