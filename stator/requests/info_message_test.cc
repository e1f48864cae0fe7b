#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/requests/link_fixture.h"
#include "stator/requests/messages.h"

namespace stator::requests {
namespace {

using testing::HasSubstr;

std::string encoded(const protocol::WorkerInfo& info) {
    std::string out;
    append_info(out, info);
    return out;
}

TEST(InfoMessage, ComesBackAsItWas) {
    const auto read = read_info(encoded(test_info()));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, test_info());
}

TEST(InfoMessage, FormatsOfTheOutput) {
    protocol::WorkerInfo info = test_info();
    for (const bool tools : {false, true}) {
        info.card.tool_format = tools ? "hermes" : "";
        info.card.reasoning_format = tools ? "" : "qwen3";
        const auto read = read_info(encoded(info));
        ASSERT_TRUE(read) << read.error().message;
        EXPECT_EQ(*read, info);
    }
}

TEST(InfoMessage, SaysWhetherOutputCanBeConstrained) {
    protocol::WorkerInfo info = test_info();
    info.card.structured_output = true;
    const auto read = read_info(encoded(info));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, info);
    EXPECT_FALSE(protocol::same_pool(info.card, test_info().card));
    EXPECT_NE(protocol::pool_id(info.card), protocol::pool_id(test_info().card));
}

TEST(InfoMessage, SaysWhoCanOnlyDecode) {
    protocol::WorkerInfo info = test_info();
    EXPECT_EQ(encoded(info).find("donly"), std::string::npos);
    info.decode_only = true;
    const auto read = read_info(encoded(info));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, info);
}

TEST(InfoMessage, WhatATokenTakesInAHandoffIsNotOfTheIdentity) {
    protocol::WorkerInfo info = test_info();
    info.card.kv_bytes_per_token = 131'072;
    const auto read = read_info(encoded(info));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, info);
    EXPECT_TRUE(protocol::same_pool(info.card, test_info().card));
    EXPECT_EQ(protocol::pool_id(info.card), protocol::pool_id(test_info().card));
}

TEST(InfoMessage, RolesAndMedia) {
    protocol::WorkerInfo info = test_info();
    info.roles = {protocol::Role::kPrefill, protocol::Role::kDecode, protocol::Role::kEncode};
    info.card.media = {"image", "video"};
    info.card.media_digest = "sha256-sample:" + std::string(64, 'd');
    info.card.media_mark = "<image>";
    const auto read = read_info(encoded(info));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, info);
}

TEST(InfoMessage, AdaptersAreNoPartOfTheIdentity) {
    protocol::WorkerInfo info = test_info();
    info.card.adapters = {"de", "fr"};
    const auto read = read_info(encoded(info));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, info);
    EXPECT_TRUE(protocol::same_pool(info.card, test_info().card));
    EXPECT_EQ(protocol::pool_id(info.card), protocol::pool_id(test_info().card));
}

TEST(LoadMessage, SaysWhatLegsHaveLeft) {
    for (const std::uint64_t limit : {0UL, 1UL << 30}) {
        LoadMessage load{.rank = 1, .load = {.running = 2}, .booking = 3, .steps = 4};
        load.load.unclaimed_limit = limit;
        load.load.unclaimed_handoffs = limit == 0 ? 0 : 7;
        load.load.unclaimed_bytes = limit / 2;
        std::string out;
        append_load(out, load);
        EXPECT_EQ(out.find("homax") == std::string::npos, limit == 0);
        const auto read = read_load(out);
        ASSERT_TRUE(read) << read.error().message;
        EXPECT_EQ(*read, load);
    }
}

TEST(InfoMessage, AWorkerThatIsLoadingNeedNotKnowItsModel) {
    protocol::WorkerInfo info = test_info();
    info.card = {};
    info.card.name = "loading";
    info.loading = true;
    const auto read = read_info(encoded(info));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, info);
    info.loading = false;
    EXPECT_THAT(read_info(encoded(info)).error().message, HasSubstr("tokenizer"));
}

TEST(InfoMessage, LiesAreRefusedByName) {
    const auto refused = [](auto change) {
        protocol::WorkerInfo info = test_info();
        change(info);
        const auto read = read_info(encoded(info));
        return read ? std::string("taken") : read.error().message;
    };
    EXPECT_THAT(refused([](auto& i) { i.ranks.clear(); }), HasSubstr("ranks"));
    EXPECT_THAT(refused([](auto& i) { i.ranks[1].rank = 5; }), HasSubstr("rank 5"));
    EXPECT_THAT(refused([](auto& i) { i.roles.clear(); }), HasSubstr("role"));
    EXPECT_THAT(refused([](auto& i) { i.name.clear(); }), HasSubstr("name"));
    EXPECT_THAT(refused([](auto& i) { i.card.tokenizer.sha256 = "ABC"; }), HasSubstr("ABC"));
    EXPECT_THAT(refused([](auto& i) { i.card.chat_template->sha256.clear(); }),
                HasSubstr("template"));
}

TEST(InfoMessage, NoCutOfItIsTaken) {
    const std::string whole = encoded(test_info());
    for (std::size_t n = 0; n < whole.size(); ++n) {
        EXPECT_FALSE(read_info(std::string_view(whole).substr(0, n))) << n;
    }
}

}  // namespace
}  // namespace stator::requests
