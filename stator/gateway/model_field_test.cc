#include "stator/gateway/model_field.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>

namespace stator::gateway {
namespace {

TEST(WithModel, ReplacesTheMemberOfTheOutermostObjectAlone) {
    EXPECT_EQ(with_model(R"({"a":{"model":"x"},"model" : "y","b":"model"})", "z"),
              R"({"a":{"model":"x"},"model" : "z","b":"model"})");
    EXPECT_EQ(with_model(R"({"x":"\"model\":\"q\"","model":"y"})", "z"),
              R"({"x":"\"model\":\"q\"","model":"z"})");
    EXPECT_EQ(with_model(R"({"model":"y\"}"})", "a\"b"), R"({"model":"a\"b"})");
}

TEST(WithModel, SaysWhereThereIsNone) {
    for (const char* text :
         {"", "{", R"({"model")", R"({"model":)", R"({"model":1})", R"(["model","a"])",
          R"({"model":"a)", R"({"a":"\)", R"({"b":{"model":"x"}})"}) {
        EXPECT_EQ(with_model(text, "z"), std::nullopt) << text;
    }
}

std::string renamed(const std::string& text, std::size_t piece) {
    ModelRenamer renamer("real", "alias");
    std::string out;
    for (std::size_t at = 0; at < text.size(); at += piece) {
        out += renamer.take(std::string_view(text).substr(at, piece));
    }
    return out + renamer.finish();
}

TEST(ModelRenamer, FindsTheNameInWhateverPieces) {
    const std::string text =
        "data: {\"model\":\"real\",\"a\":\"\\\"model\\\":\\\"real\\\"\"}\n\n"
        "data: {\"model\": \"real\",\"b\":\"real\",\"model\":\"really\"}\n\n";
    const std::string want =
        "data: {\"model\":\"alias\",\"a\":\"\\\"model\\\":\\\"real\\\"\"}\n\n"
        "data: {\"model\": \"alias\",\"b\":\"real\",\"model\":\"really\"}\n\n";
    for (std::size_t piece = 1; piece < text.size(); ++piece) EXPECT_EQ(renamed(text, piece), want);
}

TEST(ModelRenamer, PiecesMakeNoDifference) {
    EXPECT_TRUE(rc::check([] {
        std::string text;
        for (int n = *rc::gen::inRange(0, 30); n > 0; --n) {
            text += *rc::gen::element<std::string>("\"model\":", "\"model\": ", "\"real\"", "\"",
                                                   "mo", "real", "\\\"", "{", "}", "x");
        }
        const auto piece = *rc::gen::inRange<std::size_t>(1, 9);
        RC_ASSERT(renamed(text, piece) == renamed(text, text.size() + 1));
    }));
}

}  // namespace
}  // namespace stator::gateway
