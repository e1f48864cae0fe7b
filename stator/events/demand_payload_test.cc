#include "stator/events/demand_payload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/codec/msgpack.h"

namespace stator::events {
namespace {

using codec::MsgpackWriter;
using testing::HasSubstr;

std::vector<protocol::DemandTotals> two_models() {
    protocol::DemandTotals a;
    a.model = "a";
    a.offered = 7;
    a.refused = 2;
    a.prompt_tokens = 1ULL << 40U;
    a.media_items = 3;
    a.started_prompt_tokens = 5;
    a.cached_tokens = 4;
    a.finished = 6;
    a.output_tokens = 9;
    a.ttft = {.bounds = {0.1, 0.5, 2}, .counts = {1, 2, 3, 4}, .sum_s = 1.5};
    protocol::DemandTotals b;
    b.model = "b/c";
    return {a, b};
}

TEST(DemandPayload, ComesBackAsItWas) {
    const auto models = two_models();
    const auto back = decode_demand(encode_demand(models));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, models);
    EXPECT_TRUE(decode_demand(encode_demand({}))->empty());
}

TEST(DemandPayload, UnknownKeysArePassedOver) {
    std::string bytes;
    MsgpackWriter(bytes).map(2).string("new").array(1).number(1).string("models").array(1);
    MsgpackWriter(bytes).map(2).string("later").string("x").string("offered").number(3);
    const auto back = decode_demand(bytes);
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->size(), 1U);
    EXPECT_EQ(back->front().offered, 3U);
}

TEST(DemandPayload, CutAnywhereItIsAnError) {
    const std::string whole = encode_demand(two_models());
    for (std::size_t n = 0; n < whole.size(); ++n) {
        EXPECT_FALSE(decode_demand(std::string_view(whole).substr(0, n))) << n;
    }
    EXPECT_FALSE(decode_demand(whole + "x"));
}

TEST(DemandPayload, WrongDurationsAreNamed) {
    auto models = two_models();
    models[0].ttft.counts.pop_back();
    EXPECT_THAT(decode_demand(encode_demand(models)).error().message,
                HasSubstr("3 counts for 3 bounds"));
    models = two_models();
    models[0].ttft.bounds = {0.1, 0.1, 2};
    EXPECT_THAT(decode_demand(encode_demand(models)).error().message, HasSubstr("ascend"));
    models[0].ttft.bounds.assign(kMaxDurationBounds + 1, 1.0);
    EXPECT_THAT(decode_demand(encode_demand(models)).error().message, HasSubstr("at most 128"));
    models.assign(kMaxDemandModels + 1, {});
    EXPECT_THAT(decode_demand(encode_demand(models)).error().message, HasSubstr("at most 1024"));
}

}  // namespace
}  // namespace stator::events
