#include "stator/loadgen/request_body.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "stator/codec/json.h"

namespace stator::loadgen {
namespace {

using testing::HasSubstr;
using testing::Not;
using workload::RequestSpec;

const FindOutput kNothing = [](std::uint64_t) { return nullptr; };

RequestSpec spec_of(std::vector<workload::Segment> prompt) {
    RequestSpec spec;
    spec.prompt = std::move(prompt);
    spec.output_tokens = 7;
    return spec;
}

Dialect dialect_of(Api api) {
    Dialect d;
    d.api = api;
    d.model = "m";
    return d;
}

class BodyTest : public testing::Test {
  protected:
    codec::JsonView write(const RequestSpec& spec, const Dialect& dialect,
                          const FindOutput& find = kNothing) {
        auto body = request_body(spec, dialect, find);
        EXPECT_TRUE(body.has_value()) << body.error().message;
        text_ = *body;
        auto root = json_.parse(text_);
        EXPECT_TRUE(root.has_value()) << root.error().message << text_;
        return *root;
    }
    static std::string content(codec::JsonView root, std::size_t index) {
        std::string out;
        root.find("messages").each_element([&](std::size_t i, codec::JsonView m) {
            if (i == index) out = m.find("content").as_string().value_or("");
            return true;
        });
        return out;
    }
    static std::vector<std::string> roles(codec::JsonView root) {
        std::vector<std::string> out;
        root.find("messages").each_element([&](std::size_t, codec::JsonView m) {
            out.emplace_back(m.find("role").as_string().value_or(""));
            return true;
        });
        return out;
    }
    static std::ptrdiff_t words(const std::string& text) { return std::ranges::count(text, ' '); }

    codec::JsonDocument json_;
    std::string text_;
};

TEST_F(BodyTest, AsksForAllOfTheTokens) {
    const auto root = write(spec_of({{1, 10, std::nullopt}}), dialect_of(Api::kChat));
    EXPECT_EQ(root.find("model").as_string(), "m");
    EXPECT_EQ(root.find("max_tokens").as_uint(), 7u);
    EXPECT_EQ(root.find("min_tokens").as_uint(), 7u);
    EXPECT_EQ(root.find("ignore_eos").as_bool(), true);
    EXPECT_EQ(root.find("stream").as_bool(), true);
    EXPECT_EQ(root.find("stream_options").find("include_usage").as_bool(), true);
}

TEST_F(BodyTest, StrictServersGetOnlyWhatTheyKnow) {
    Dialect d = dialect_of(Api::kChat);
    d.strict = true;
    d.extra = R"("temperature":0.5)";
    RequestSpec spec = spec_of({{1, 10, std::nullopt}});
    spec.priority = 3;
    spec.adapter = "lora";
    const auto root = write(spec, d);
    EXPECT_EQ(root.find("model").as_string(), "lora");
    EXPECT_EQ(root.find("temperature").as_double(), 0.5);
    for (const char* key : {"min_tokens", "ignore_eos", "priority"}) {
        EXPECT_FALSE(root.find(key).present()) << key;
    }
}

TEST_F(BodyTest, WordsAreCountedOutInTokens) {
    Dialect d = dialect_of(Api::kChat);
    d.tokens_per_word = 2.5;
    d.frame_tokens = 20;
    EXPECT_EQ(words(content(write(spec_of({{1, 120, std::nullopt}}), d), 0)), 40);
    // Many small pieces don't add their rounding up.
    std::vector<workload::Segment> pieces;
    for (std::uint64_t i = 0; i < 100; ++i) pieces.push_back({i, 3, std::nullopt});
    EXPECT_NEAR(static_cast<double>(words(content(write(spec_of(pieces), d), 0))), 280 / 2.5, 8);
}

TEST_F(BodyTest, EqualBeginningsAreEqualTexts) {
    Dialect d = dialect_of(Api::kCompletions);
    d.tokens_per_word = 1.37;
    d.frame_tokens = 5;
    const auto text = [&](std::vector<workload::Segment> prompt) {
        return std::string(write(spec_of(std::move(prompt)), d).find("prompt").as_string().value());
    };
    const std::string shared = text({{1, 33, std::nullopt}, {2, 17, std::nullopt}});
    const std::string longer =
        text({{1, 33, std::nullopt}, {2, 17, std::nullopt}, {3, 50, std::nullopt}});
    const std::string other = text({{1, 33, std::nullopt}, {4, 17, std::nullopt}});
    EXPECT_TRUE(longer.starts_with(shared));
    EXPECT_FALSE(other.starts_with(shared));
}

TEST_F(BodyTest, TurnsRepeatWhatWasSaid) {
    const std::map<std::uint64_t, Output> outputs{{3, {"the \"answer\"", 5}}};
    const FindOutput find = [&](std::uint64_t index) -> const Output* {
        const auto it = outputs.find(index);
        return it == outputs.end() ? nullptr : &it->second;
    };
    const auto prompt = [](std::uint64_t output) {
        return spec_of({{1, 10, std::nullopt}, {2, 5, output}, {3, 4, std::nullopt}});
    };
    const auto root = write(prompt(3), dialect_of(Api::kChat), find);
    EXPECT_EQ(roles(root), (std::vector<std::string>{"user", "assistant", "user"}));
    EXPECT_EQ(content(root, 1), "the \"answer\"\n");
    EXPECT_EQ(words(content(root, 2)), 4);
    // One that failed is made up.
    EXPECT_EQ(words(content(write(prompt(4), dialect_of(Api::kChat), find), 1)), 5);
    // Somebody must have the last word.
    EXPECT_EQ(
        roles(write(spec_of({{1, 10, std::nullopt}, {2, 5, 3}}), dialect_of(Api::kChat), find)),
        (std::vector<std::string>{"user", "assistant", "user"}));
}

TEST_F(BodyTest, TokensAreExact) {
    const FindOutput find = [](std::uint64_t) {
        static const Output output{"", 9};
        return &output;
    };
    const auto root =
        write(spec_of({{1, 100, std::nullopt}, {2, 5, 3}}), dialect_of(Api::kTokens), find);
    EXPECT_EQ(root.find("prompt").size(), 109u);
    root.find("prompt").each_element([](std::size_t, codec::JsonView v) {
        EXPECT_GE(v.as_uint().value_or(0), 33u);
        EXPECT_LT(v.as_uint().value_or(0), 127u);
        return true;
    });
}

TEST_F(BodyTest, ImagesAreDataUrls) {
    RequestSpec spec = spec_of({{1, 10, std::nullopt}});
    spec.images = {{5, 8, 8}};
    write(spec, dialect_of(Api::kChat));
    EXPECT_THAT(text_, HasSubstr(R"("url":"data:image/png;base64,iVBORw0KGgo)"));
    EXPECT_FALSE(request_body(spec, dialect_of(Api::kCompletions), kNothing).has_value());
}

TEST_F(BodyTest, FilesOfPromptsAreSentAsTheyAre) {
    RequestSpec spec = spec_of({});
    spec.text = "Why?\xff";
    EXPECT_EQ(content(write(spec, dialect_of(Api::kChat)), 0), "Why?\xEF\xBF\xBD");
    EXPECT_FALSE(request_body(spec, dialect_of(Api::kTokens), kNothing).has_value());
    spec.text.clear();
    spec.messages = R"([{"role":"system","content":"x"}])";
    EXPECT_EQ(roles(write(spec, dialect_of(Api::kChat))), (std::vector<std::string>{"system"}));
    EXPECT_FALSE(request_body(spec, dialect_of(Api::kCompletions), kNothing).has_value());
}

}  // namespace
}  // namespace stator::loadgen
