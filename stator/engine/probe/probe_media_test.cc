#include "stator/engine/probe/probe_media.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Renders the kinds that are named.
PostToEngine renders(std::vector<std::string> kinds, int* asked = nullptr) {
    return [kinds, asked](std::string_view path, const std::string& body) -> EngineAnswer {
        if (asked != nullptr) ++*asked;
        EXPECT_EQ(path, "/v1/chat/completions/render");
        EXPECT_THAT(body, HasSubstr(R"("model":"tiny")"));
        for (const std::string& kind : kinds) {
            if (body.find(kind + "_url") == std::string::npos) continue;
            const auto at = body.find("\"uuid\":\"") + 8;
            const int id = kind == "image" ? 390 : 391;
            return {200, fmt::format(R"({{"token_ids":[1,7,{0},{0},7,2],"features":{{)"
                                     R"("mm_hashes":{{"{1}":["{2}"]}},"mm_placeholders":{{"{1}":)"
                                     R"([{{"offset":1,"length":4}}]}}}}}})",
                                     id, kind, body.substr(at, 64))};
        }
        return {400, "{}"};
    };
}

FoundEngine vllm(Dialect dialect = Dialect::kVllmGenerate) {
    FoundEngine f;
    f.dialect = dialect;
    f.model.name = "tiny";
    return f;
}

TEST(ProbeMedia, SmallItemsShowWhatAnEngineReads) {
    const auto both = probe_media(vllm(), renders({"image", "video"}));
    EXPECT_THAT(both.kinds, ElementsAre("image", "video"));
    EXPECT_THAT(both.placeholders, ElementsAre(390, 391)) << "not what stands around them";
    const auto pictures = probe_media(vllm(), renders({"image"}));
    EXPECT_THAT(pictures.kinds, ElementsAre("image"));
    EXPECT_THAT(pictures.placeholders, ElementsAre(390));
    EXPECT_THAT(probe_media(vllm(), renders({})).kinds, IsEmpty());
    EXPECT_THAT(probe_media(vllm(), [](auto, auto) { return EngineAnswer{200, "{}"}; }).kinds,
                IsEmpty());
    int asked = 0;
    EXPECT_THAT(probe_media(vllm(Dialect::kVllmCompletions), renders({"image"}, &asked)).kinds,
                IsEmpty());
    EXPECT_EQ(asked, 0) << "it takes no features";
}

TEST(ProbeMedia, AConfigSaysWhatStandsForAPicture) {
    const auto qwen =
        media_of_config(R"({"image_token_id":390,"video_token_id":391,"vision_start_token_id":387,)"
                        R"("vision_end_token_id":388})");
    EXPECT_THAT(qwen.kinds, ElementsAre("image"));
    EXPECT_THAT(qwen.placeholders, ElementsAre(390));
    EXPECT_THAT(qwen.around, ElementsAre(387, 390, 388));
    EXPECT_THAT(media_of_config(R"({"image_token_index":32000})").around, ElementsAre(32000));
    for (const char* none :
         {"", "{}", "[]", R"({"image_token_id":"x"})", R"({"image_token_id":4294967295})"}) {
        EXPECT_THAT(media_of_config(none).kinds, IsEmpty()) << none;
    }
}

}  // namespace
}  // namespace stator::engine
