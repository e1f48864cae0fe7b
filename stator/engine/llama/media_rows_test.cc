#include "stator/engine/llama/media_rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "stator/engine/llama/scheduler_fixture.h"
#include "stator/tokens/hash.h"

namespace stator::engine::llama {
namespace {

constexpr std::uint32_t kWidth = 4;

/// Two text tokens, `rows` of a picture with a text token amid them, two text tokens.
protocol::GenerateRequest with_picture(std::uint64_t id, std::uint32_t rows) {
    protocol::GenerateRequest r = request(id, {1, 2}, 3);
    protocol::MediaItem item;
    item.digest.fill(9);
    item.position = 2;
    item.tokens = rows + 1;
    for (std::uint32_t i = 0; i < rows; ++i) {
        if (i == 1) r.prompt.push_back(5);
        r.prompt.push_back(tokens::media_token(item.digest, i));
    }
    r.prompt.push_back(3);
    r.prompt.push_back(4);
    auto floats = std::make_shared<std::vector<float>>(rows * kWidth);
    for (std::size_t i = 0; i < floats->size(); ++i) (*floats)[i] = static_cast<float>(i);
    auto what = std::make_shared<protocol::Handoff>();
    what->kind = protocol::Handoff::Kind::kEmbeddings;
    what->layout = embeddings_layout_prefix(kWidth) + "encoder";
    what->content = item.digest;
    what->tokens = rows;
    // In two parts.
    auto arrived = std::make_shared<protocol::HandoffBytes>();
    const auto bytes = std::as_bytes(std::span(*floats));
    what->parts = {{0, 1, 0, 16}, {1, rows - 1, 16, bytes.size() - 16}};
    arrived->parts = {bytes.first(16), bytes.subspan(16)};
    arrived->what = what;
    arrived->keep = floats;
    item.arrived = arrived;
    r.media = {item};
    return r;
}

TEST(MediaRows, EachMediaTokenHasItsRow) {
    const auto r = with_picture(1, 3);
    ASSERT_TRUE(check_prompt(r, 100));
    ASSERT_TRUE(check_media(r, kWidth));
    const MediaRows rows(r);
    std::vector<float> first;
    for (std::uint32_t i = 0; i < r.prompt.size(); ++i) {
        const std::byte* row = rows.at(i);
        EXPECT_EQ(row != nullptr, r.prompt[i] >= tokens::kFirstMediaToken) << i;
        if (row == nullptr) continue;
        float value = 0;
        std::memcpy(&value, row, sizeof value);
        first.push_back(value);
    }
    EXPECT_EQ(first, (std::vector<float>{0, 4, 8}));
}

TEST(MediaRows, AnItemWithoutRowsHasNone) {
    auto r = with_picture(1, 3);
    r.media[0].arrived = nullptr;
    EXPECT_TRUE(check_prompt(r, 100));
    EXPECT_EQ(check_media(r, kWidth).error().code, ErrorCode::kUnavailable);
    EXPECT_EQ(MediaRows(r).at(2), nullptr);
}

TEST(MediaRows, EmbeddingsThatCanNotBeUsedAreNotTouched) {
    for (int wrong = 0; wrong < 4; ++wrong) {
        auto r = with_picture(1, 3);
        auto arrived = std::make_shared<protocol::HandoffBytes>(*r.media[0].arrived);
        auto what = std::make_shared<protocol::Handoff>(*arrived->what);
        if (wrong == 0) arrived->parts[1] = arrived->parts[1].first(31);
        if (wrong == 1) arrived->parts.push_back(arrived->parts[0]);
        if (wrong == 2) what->parts[1].tokens = 0;
        if (wrong == 3) what->parts[1].tokens = 4;
        arrived->what = what;
        r.media[0].arrived = arrived;
        EXPECT_FALSE(check_media(r, kWidth)) << wrong;
        drop_unusable_media(r, kWidth);
        EXPECT_EQ(MediaRows(r).at(2), nullptr) << wrong;
    }
    auto good = with_picture(1, 3);
    drop_unusable_media(good, kWidth);
    EXPECT_NE(MediaRows(good).at(2), nullptr);
}

TEST(MediaRows, TokensOutsideTheVocabularyAreForItemsAlone) {
    const auto good = with_picture(1, 3);
    EXPECT_FALSE(check_prompt(good, 5)) << "the text amid the rows counts too";
    for (std::size_t i = 0; i < good.prompt.size(); ++i) {
        auto r = good;
        r.prompt[i] ^= 1U << 31;
        EXPECT_FALSE(check_prompt(r, 100)) << i;
    }
    auto shifted = good;
    shifted.media[0].position = 3;
    EXPECT_FALSE(check_prompt(shifted, 100));
    shifted.media[0].position = 0xffffffff;
    EXPECT_FALSE(check_prompt(shifted, 100));
}

TEST(MediaRows, ADecodeLegThatHasToComputeAPictureItLacksIsWithdrawn) {
    Bench b({.kv_tokens = 64,
             .max_sequence_tokens = 48,
             .block_tokens = 4,
             .step_tokens = 16,
             .max_running = 4,
             .max_waiting = 8,
             .parked_tokens = 0,
             .prefix_cache = true});
    auto lacking = with_picture(1, 3);
    lacking.media[0].arrived = nullptr;
    ASSERT_TRUE(b.scheduler.add(lacking));
    ASSERT_TRUE(b.scheduler.add(request(2, counting(5), 3)));
    StepPlan plan = b.scheduler.plan();
    b.kv.apply(plan.ops);
    ASSERT_EQ(plan.batch.size(), 13U);
    EXPECT_EQ(plan.batch[2].row, nullptr);
    EXPECT_EQ(b.scheduler.withdraw(plan, plan.batch[2].sequence), RequestId(1));
    ASSERT_EQ(plan.batch.size(), 5U);
    ASSERT_EQ(plan.outputs.size(), 1U);
    EXPECT_EQ(plan.outputs[0].index, 4U);
    EXPECT_EQ(b.scheduler.find(RequestId(1)), nullptr);
    std::vector<SampledToken> drawn;
    b.kv.forward(plan, drawn);
    std::vector<Progress> progress;
    b.scheduler.complete(drawn, progress);
    EXPECT_EQ(progress.size(), 1U);
    b.run();
    EXPECT_EQ(b.finished[2], FinishReason::kLength);
    EXPECT_EQ(b.scheduler.load().kv_used_tokens, 0U);
}

}  // namespace
}  // namespace stator::engine::llama
