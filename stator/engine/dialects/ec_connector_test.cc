#include "stator/engine/dialects/ec_connector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/codec/json.h"
#include "stator/engine/dialects/recordings_fixture.h"

namespace stator::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kUuid = "e2652763619baec06cbf60ec72c95b05f17a3213528d920c6bacea24e1b3fe82";

constexpr std::string_view kFolder = "vllm032_epd/";

std::string answer(const std::string& name) { return recorded_body(std::string(kFolder) + name); }
std::string first_content(const std::string& body, std::initializer_list<std::string_view> to) {
    codec::JsonDocument document;
    auto root = document.parse(body);
    std::string out;
    if (!root) return out;
    codec::JsonView v = *root;
    for (const auto key : to) v = v.find(key);
    v.each_element([&](std::size_t, codec::JsonView message) {
        message.find("content").each_element([&](std::size_t, codec::JsonView part) {
            part.write_to(out);
            return false;
        });
        return false;
    });
    return out;
}

TEST(EcConnector, TheRecordedChain) {
    const std::string encoded = answer("1encode");
    if (encoded.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    // What the encoder was asked.
    const std::string asked = recorded(std::string(kFolder) + "1encode.request.json");
    codec::JsonDocument document;
    const auto part = document.parse(first_content(asked, {"body", "messages"})).value();
    const std::string url(part.find("image_url").find("url").as_string().value());
    DialectOptions options;
    options.model = "tinyvl";
    std::string body;
    append_encode_body(body, {.url = url, .uuid = kUuid}, options, "n");
    EXPECT_EQ(first_content(body, {"messages"}), first_content(asked, {"body", "messages"}));
    EXPECT_EQ(at(body, {"max_tokens"}), "1");
    EXPECT_EQ(at(body, {"stream"}), "false");
    // What it said, and what the next one was told.
    const auto item = read_encode_answer(encoded, kUuid);
    ASSERT_TRUE(item) << item.error().message;
    const std::string prefill = recorded(std::string(kFolder) + "no_pixels.2prefill.request.json");
    EXPECT_EQ(ec_transfer_params(std::span(&*item, 1)),
              at(prefill, {"body", "ec_transfer_params"}));
    EXPECT_EQ(embeds_part("image", *item), first_content(prefill, {"body", "messages"}));
    EXPECT_FALSE(read_encode_answer(encoded, "another")) << "of another item";
    // By tokens.
    const auto rendered = read_rendered(answer("render"), "image");
    ASSERT_TRUE(rendered) << rendered.error().message;
    EXPECT_EQ(rendered->tokens.size(), 60U);
    ASSERT_EQ(rendered->items.size(), 1U);
    EXPECT_EQ(rendered->items[0].uuid, kUuid);
    EXPECT_EQ(rendered->items[0].offset, 4U);
    EXPECT_EQ(rendered->items[0].length, 6U);
    const std::string p = recorded(std::string(kFolder) + "generate.2prefill.request.json");
    const std::string features = features_of(rendered->items);
    for (const std::string_view key :
         {"mm_hashes", "mm_placeholders", "kwargs_data", "mm_metadata"}) {
        EXPECT_EQ(at(features, {key}), at(p, {"body", "features", key})) << key;
    }
    auto bare = rendered->items;
    bare[0].kwargs.clear();
    bare[0].metadata.clear();
    EXPECT_EQ(features_of(bare),
              at(recorded(std::string(kFolder) + "generate.3decode_no_kwargs.request.json"),
                 {"body", "features"}));
}

TEST(EcConnector, WhatAnEncoderSays) {
    const auto old = read_encode_answer(R"({"choices":[]})", "a");
    ASSERT_TRUE(old);
    EXPECT_EQ(old->params, "{}");
    EXPECT_EQ(old->metadata, "") << "the pixels must go along";
    const auto other = read_encode_answer(
        R"({"choices":[],"ec_transfer_params":{"a":{"peer_host":"h","peer_port":1}}})", "a");
    ASSERT_TRUE(other);
    EXPECT_EQ(other->params, R"({"peer_host":"h","peer_port":1})");
    EXPECT_EQ(other->metadata, "");
    for (const char* bad : {"", "{}", "[]", R"({"choices":[],"ec_transfer_params":{}})",
                            R"({"choices":[],"ec_transfer_params":{"a":1}})",
                            R"({"choices":[],"ec_transfer_params":[]})"}) {
        EXPECT_FALSE(read_encode_answer(bad, "a")) << bad;
    }
    const EncodedItem a{.uuid = "a", .params = R"({"x":1})", .metadata = "{}"};
    const EncodedItem b{.uuid = "b", .params = "{}", .metadata = "{}"};
    EXPECT_EQ(ec_transfer_params(std::vector{a, b, a}), R"({"a":{"x":1}})");
}

TEST(EcConnector, ItemsLieWithinTheirPrompt) {
    const auto rendered = [](const std::string& places,
                             const std::string& hashes = R"(["u","v"])") {
        return read_rendered(R"({"token_ids":[1,2,3,4,5],"features":{"mm_hashes":{"image":)" +
                                 hashes + R"(},"mm_placeholders":{"image":)" + places + "}}}",
                             "image");
    };
    const auto good = rendered(R"([{"offset":0,"length":2},{"offset":2,"length":3}])");
    ASSERT_TRUE(good);
    EXPECT_EQ(good->items[1].offset, 2U);
    EXPECT_THAT(features_of(good->items), Not(HasSubstr("kwargs")));
    for (const char* bad : {"[]", "null", R"([{"offset":0,"length":2}])",
                            R"([{"offset":0,"length":2},{"offset":1,"length":3}])",
                            R"([{"offset":0,"length":2},{"offset":2,"length":4}])",
                            R"([{"offset":0,"length":2},{"offset":2,"length":0}])",
                            R"([{"offset":0,"length":2},{"offset":-1,"length":1}])",
                            R"([{"offset":0,"length":2},{"offset":4294967297,"length":1}])"}) {
        EXPECT_FALSE(rendered(bad)) << bad;
    }
    EXPECT_FALSE(rendered(R"([{"offset":0,"length":2},{"offset":2,"length":3}])", R"(["u",1])"));
    EXPECT_TRUE(read_rendered(R"({"token_ids":[1],"features":null})", "image"));
    EXPECT_FALSE(read_rendered(R"({"token_ids":[4294967295]})", "image"));
    EXPECT_FALSE(read_rendered("{}", "image"));
}

}  // namespace
}  // namespace stator::engine
