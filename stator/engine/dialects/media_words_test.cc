#include "stator/engine/dialects/media_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/engine/dialects/picture_url.h"
#include "stator/engine/dialects/recordings_fixture.h"
#include "stator/tokens/token.h"

namespace stator::engine {
namespace {

using protocol::GenerateRequest;
using protocol::Handoff;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

const std::string kUuid = "e2652763619baec06cbf60ec72c95b05f17a3213528d920c6bacea24e1b3fe82";

protocol::Digest digest_of(const std::string& hex) {
    protocol::Digest out{};
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
    }
    return out;
}

protocol::MediaItem item(std::uint32_t position, const MediaWords& words,
                         const protocol::Digest& digest) {
    protocol::MediaItem out;
    out.digest = digest;
    out.position = position;
    out.tokens = static_cast<std::uint32_t>(tokens_of(words));
    auto h = std::make_shared<Handoff>();
    h->kind = Handoff::Kind::kEmbeddings;
    h->content = digest;
    h->tokens = out.tokens;
    h->object = write_media_words(words);
    out.embeddings = std::move(h);
    return out;
}

/// "10 11 <item> 12", for each item once more.
GenerateRequest request_with(const std::vector<MediaWords>& items) {
    GenerateRequest r;
    std::uint8_t name = 1;
    for (const MediaWords& words : items) {
        r.prompt.insert(r.prompt.end(), {10, 11});
        protocol::Digest digest{};
        digest.fill(name++);
        r.media.push_back(item(static_cast<std::uint32_t>(r.prompt.size()), words, digest));
        for (std::uint32_t i = 0; i < tokens_of(words); ++i) {
            r.prompt.push_back(tokens::media_token(digest, i));
        }
    }
    r.prompt.push_back(12);
    return r;
}

const MediaWords kThree{.modality = "image", .runs = {{390, 3}}, .params = R"({"x":1})"};
const MediaWords kMixed{.modality = "image", .runs = {{7, 1}, {390, 2}, {7, 1}}, .params = "{}"};
const MediaWords kVideo{.modality = "video", .runs = {{391, 2}}, .params = "{}"};

TEST(PictureUrl, IsAPngThatIsNotCompressed) {
    protocol::MediaContent c;
    c.width = c.height = 2;
    for (const int b : {250, 251, 252, 253, 254, 255, 0, 1, 2, 3, 4, 5}) {
        c.pixels += static_cast<char>(b);
    }
    EXPECT_EQ(
        picture_url(c),
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAGUlEQVR4AQEOAPH/"
        "APr7/P3+/wAAAQIDBAU+QwX7r0CQIwAAAABJRU5ErkJggg==");
    const std::string one = picture_url(c).substr(std::string("data:image/png;base64,").size());
    c.kind = protocol::MediaContent::Kind::kVideo;
    c.frames = 2;
    c.pixels += c.pixels;
    EXPECT_EQ(picture_url(c), "data:video/jpeg;base64," + one + "," + one);
    std::string text;
    for (const std::string_view bytes : {"", "f", "fo", "foo"}) append_base64(text, bytes);
    EXPECT_EQ(text, "Zg==Zm8=Zm9v");
}

TEST(MediaWords, ComeBackAsTheyWere) {
    for (const MediaWords& words : {kThree, kMixed, kVideo}) {
        const auto read = read_media_words(write_media_words(words));
        ASSERT_TRUE(read) << read.error().message;
        EXPECT_EQ(*read, words);
    }
    for (const char* bad :
         {"", "{}", R"({"modality":"image"})", R"({"modality":"image","ids":[],"params":{}})",
          R"({"modality":"sound","ids":[[1,1]],"params":{}})",
          R"({"modality":"image","ids":[[1]],"params":{}})",
          R"({"modality":"image","ids":[[1,0]],"params":{}})",
          R"({"modality":"image","ids":[[1,2,3]],"params":{}})",
          R"({"modality":"image","ids":[[2147483648,1]],"params":{}})",
          R"({"modality":"image","ids":[[1,1048577]],"params":{}})",
          R"({"modality":"image","ids":[[1,1]]})",
          R"({"modality":"image","ids":[[1,1]],"params":[]})"}) {
        EXPECT_FALSE(read_media_words(bad)) << bad;
    }
}

TEST(MediaWords, TheRecordedPromptIsWrittenAgain) {
    const std::string rendered = recorded_body("vllm032_epd/render");
    if (rendered.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    const auto prompt = read_rendered(rendered, "image");
    ASSERT_TRUE(prompt) << prompt.error().message;
    auto words = words_of(*prompt);
    ASSERT_TRUE(words) << words.error().message;
    EXPECT_THAT(words->runs, ElementsAre(Pair(390, 6)));
    const auto encoded = read_encode_answer(recorded_body("vllm032_epd/1encode"), kUuid);
    ASSERT_TRUE(encoded);
    words->params = encoded->params;

    GenerateRequest r;
    r.prompt = prompt->tokens;
    const auto digest = digest_of(kUuid);
    EXPECT_EQ(media_uuid(digest), kUuid);
    for (std::uint32_t i = 0; i < 6; ++i) r.prompt[4 + i] = tokens::media_token(digest, i);
    r.media = {item(4, *words, digest)};
    const PlacedItem& placed = prompt->items.front();
    const std::vector<ItemInputs> inputs{
        {.kwargs = placed.kwargs, .metadata = placed.metadata, .url = {}}};
    const auto media = media_body(r, Dialect::kVllmGenerate, inputs);
    ASSERT_TRUE(media) << media.error().message;
    EXPECT_EQ(media->prompt, prompt->tokens);
    const std::string p = recorded("vllm032_epd/generate.2prefill.request.json");
    DialectOptions options;
    options.dialect = Dialect::kVllmGenerate;
    options.connector = KvConnector::kVllmNixl;
    r.leg = protocol::Leg::kPrefill;
    std::string body;
    ASSERT_TRUE(append_request_body(body, r, options, "n", {}, &*media));
    for (const std::string_view key : {"mm_hashes", "mm_placeholders", "kwargs_data"}) {
        EXPECT_EQ(at(body, {"features", key}), at(p, {"body", "features", key})) << key;
    }
    EXPECT_EQ(at(body, {"sampling_params", "extra_args"}),
              at(p, {"body", "sampling_params", "extra_args"}));
    EXPECT_EQ(at(body, {"token_ids"}), at(p, {"body", "token_ids"}));
    // A decode leg's.
    const auto bare = media_body(r, Dialect::kVllmGenerate, std::vector<ItemInputs>(1));
    ASSERT_TRUE(bare);
    EXPECT_EQ(bare->features, at(recorded("vllm032_epd/generate.3decode_no_kwargs.request.json"),
                                 {"body", "features"}));
}

TEST(MediaWords, ItemsStandInTheirOrderWithTheEnginesIds) {
    const GenerateRequest r = request_with({kMixed, kThree, kVideo});
    const std::vector<ItemInputs> inputs{{.kwargs = "k1", .metadata = {}, .url = "u1"},
                                         {.kwargs = "k2", .metadata = {}, .url = "u2"},
                                         {.kwargs = "k3", .metadata = {}, .url = "u3"}};
    const auto vllm = media_body(r, Dialect::kVllmGenerate, inputs);
    ASSERT_TRUE(vllm) << vllm.error().message;
    EXPECT_THAT(vllm->prompt,
                ElementsAre(10, 11, 7, 390, 390, 7, 10, 11, 390, 390, 390, 10, 11, 391, 391, 12));
    EXPECT_EQ(at(vllm->features, {"kwargs_data"}), R"({"image":["k1","k2"],"video":["k3"]})");
    EXPECT_EQ(at(vllm->features, {"mm_placeholders", "video"}), R"([{"offset":13,"length":2}])");
    EXPECT_EQ(vllm->ec_params, R"({")" + media_uuid(r.media[1].digest) + R"(":{"x":1}})");
    const auto sglang = media_body(r, Dialect::kSglang, inputs);
    ASSERT_TRUE(sglang);
    EXPECT_THAT(sglang->urls, ElementsAre("u1", "u2", "u3"));
    EXPECT_EQ(sglang->prompt.size(), 10U) << "one placeholder for each";
}

TEST(MediaWords, WhatWasNotEncodedForThisEngineIsEncodedAgain) {
    const auto refused = [](auto change) {
        GenerateRequest r = request_with({kThree, kThree});
        change(r);
        const auto body = media_body(r, Dialect::kVllmGenerate, std::vector<ItemInputs>(2));
        return body ? std::string("taken")
                    : std::string(to_string(body.error().code)) + " " + body.error().param;
    };
    EXPECT_EQ(refused([](auto&) {}), "taken");
    EXPECT_EQ(refused([](auto& r) { r.media[1].embeddings.reset(); }), "unavailable media");
    EXPECT_EQ(refused([](auto& r) { r.media[1].tokens = 2; }), "unavailable media");
    EXPECT_EQ(refused([](auto& r) {
                  auto h = std::make_shared<Handoff>(*r.media[1].embeddings);
                  h->object = "{}";
                  r.media[1].embeddings = h;
              }),
              "unavailable media");
    EXPECT_EQ(refused([](auto& r) { r.prompt[0] = tokens::kFirstMediaToken; }),
              "invalid_argument ");
    EXPECT_EQ(refused([](auto& r) { r.prompt.back() = tokens::kFirstMediaToken; }),
              "invalid_argument ");
}

TEST(MediaWords, WhoHasNoWordsForMediaRefusesThem) {
    const GenerateRequest r = request_with({kThree});
    const auto media = media_body(r, Dialect::kVllmGenerate, std::vector<ItemInputs>(1));
    ASSERT_TRUE(media);
    for (const Dialect d : {Dialect::kVllmCompletions, Dialect::kTrtllm, Dialect::kVllmGenerate}) {
        std::string body;
        const bool with = d != Dialect::kVllmGenerate;
        const auto done =
            append_request_body(body, r, {.dialect = d}, "n", {}, with ? &*media : nullptr);
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().code, ErrorCode::kUnsupported);
        EXPECT_EQ(body, "");
    }
}

TEST(MediaWords, SglangIsAskedHowLongAPictureIs) {
    std::string body;
    append_count_body(body, std::vector<tokens::TokenId>{387, 390, 388}, "data:x", "n");
    EXPECT_EQ(at(body, {"input_ids"}), "[387,390,388]");
    EXPECT_EQ(at(body, {"image_data"}), R"(["data:x"])");
    EXPECT_EQ(read_count_answer(R"({"meta_info":{"prompt_tokens":8}})", 3).value(), 6U);
    for (const char* bad :
         {"", "{}", R"({"meta_info":{"prompt_tokens":2}})", R"({"meta_info":{"prompt_tokens":-8}})",
          R"({"meta_info":{"prompt_tokens":4294967296}})"}) {
        EXPECT_FALSE(read_count_answer(bad, 3)) << bad;
    }
}

}  // namespace
}  // namespace stator::engine
