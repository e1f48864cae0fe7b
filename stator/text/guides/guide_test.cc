#include "stator/text/guides/guide.h"

#include <gtest/gtest.h>

#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/text/byte_tokenizer.h"
#include "stator/text/guides/guide_fixture.h"

namespace stator::text {
namespace {

using protocol::OutputConstraint;
using Kind = OutputConstraint::Kind;
using guides::Texts;

Guide compile(const GuideFactory& factory, Kind kind, std::string text, std::string after = "") {
    auto guide = factory.compile({kind, std::move(text), std::move(after)});
    EXPECT_TRUE(guide) << guide.error().message;
    return std::move(*guide);
}

std::string why_not(const GuideFactory& factory, Kind kind, std::string text) {
    auto guide = factory.compile({kind, std::move(text), {}});
    if (guide) return "compiled";
    EXPECT_EQ(guide.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(guide.error().param, "constraint");
    EXPECT_LE(guide.error().message.size(), 700U);
    return guide.error().message;
}

class GuideTest : public testing::Test {
  protected:
    GuideTest() : tokenizer_({"<|im_start|>"}) {
        auto made = GuideFactory::make(tokenizer_);
        EXPECT_TRUE(made);
        factory_ = *made;
    }

    /// Takes the bytes of `text` as far as the guide lets them; the count.
    static std::size_t follow(Guide& guide, std::string_view text) {
        std::vector<std::uint32_t> bits(10);
        for (std::size_t i = 0; i < text.size(); ++i) {
            const auto token = static_cast<unsigned char>(text[i]);
            auto ok = guide.mask(bits);
            EXPECT_TRUE(ok) << ok.error().message;
            if ((bits[token / 32] >> (token % 32) & 1U) == 0) {
                EXPECT_FALSE(guide.accept(token));
                return i;
            }
            auto taken = guide.accept(token);
            EXPECT_TRUE(taken) << taken.error().message;
        }
        return text.size();
    }

    static bool allows(Guide& guide, TokenId token) {
        std::vector<std::uint32_t> bits(10);
        EXPECT_TRUE(guide.mask(bits));
        return (bits[token / 32] >> (token % 32) & 1U) != 0;
    }

    /// Whether the guide takes all of `text` and lets it end there.
    bool matches(Kind kind, std::string text, std::string_view output) {
        Guide guide = compile(*factory_, kind, std::move(text));
        return follow(guide, output) == output.size() && guide.may_end();
    }

    ByteTokenizer tokenizer_;
    std::shared_ptr<const GuideFactory> factory_;
};

TEST_F(GuideTest, AJsonObjectMayBeAnyObject) {
    Guide guide = compile(*factory_, Kind::kJsonObject, "");
    EXPECT_FALSE(guide.may_end());
    EXPECT_FALSE(allows(guide, 'a'));
    EXPECT_FALSE(allows(guide, '['));
    EXPECT_FALSE(allows(guide, ByteTokenizer::kEnd));
    const std::string_view text = R"({"a": [1, 2.5e3, null, "x\né\u0007"], "b": {}})";
    EXPECT_EQ(follow(guide, text), text.size());
    EXPECT_TRUE(guide.finished());  // not even a blank may follow
}

TEST_F(GuideTest, TheTextMayEndWhereTheGrammarSaysSo) {
    Guide guide = compile(*factory_, Kind::kRegex, "[0-9]{1,3}");
    EXPECT_FALSE(allows(guide, ByteTokenizer::kEnd));
    EXPECT_EQ(follow(guide, "1"), 1U);
    EXPECT_TRUE(guide.may_end());
    EXPECT_FALSE(guide.finished());
    EXPECT_TRUE(allows(guide, ByteTokenizer::kEnd));
    EXPECT_EQ(follow(guide, "23"), 2U);
    EXPECT_TRUE(guide.finished());
}

TEST_F(GuideTest, ASchemaHoldsTypesNamesAndOrder) {
    const std::string schema =
        R"({"type":"object","properties":{"name":{"type":"string","maxLength":5},)"
        R"("age":{"type":"integer","minimum":0,"maximum":130}},)"
        R"("required":["name","age"],"additionalProperties":false})";
    EXPECT_TRUE(matches(Kind::kJsonSchema, schema, R"({"name":"Ada","age":36})"));
    EXPECT_TRUE(matches(Kind::kJsonSchema, schema, "{\n  \"name\": \"Ada\",\n  \"age\": 36\n}"));
    EXPECT_FALSE(matches(Kind::kJsonSchema, schema, R"({"name":"Ada"})"));
    EXPECT_FALSE(matches(Kind::kJsonSchema, schema, R"({"name":"Ada","age":131})"));
    EXPECT_FALSE(matches(Kind::kJsonSchema, schema, R"({"name":"Adelaide","age":36})"));
    EXPECT_FALSE(matches(Kind::kJsonSchema, schema, R"({"name":"Ada","age":36,"x":1})"));
}

TEST_F(GuideTest, BlanksInJsonAreBounded) {
    EXPECT_FALSE(matches(Kind::kJsonObject, "", "{\"a\":  1}"));
    EXPECT_FALSE(matches(Kind::kJsonObject, "", "{\n\n\"a\": 1}"));
    EXPECT_TRUE(matches(Kind::kJsonObject, "", "{\n\t\"a\": 1}"));
    // The schema can say what it wants instead.
    const std::string free = R"({"type":"object","x-guidance":{"whitespace_pattern":"[ \\n]+"}})";
    EXPECT_TRUE(matches(Kind::kJsonSchema, free, "{\n\n  \"a\": 1}"));
    const std::string none = R"({"type":"object","x-guidance":{"whitespace_flexible":false}})";
    EXPECT_FALSE(matches(Kind::kJsonSchema, none, "{ \"a\":1}"));
}

TEST_F(GuideTest, ARegexMatchesAllOfTheText) {
    EXPECT_TRUE(matches(Kind::kRegex, R"(\d{3}-\d{4})", "555-0199"));
    EXPECT_FALSE(matches(Kind::kRegex, R"(\d{3}-\d{4})", "555-019"));
    EXPECT_TRUE(matches(Kind::kRegex, "^(yes|no)$", "yes"));
    EXPECT_TRUE(matches(Kind::kRegex, R"(a/b\$)", "a/b$"));
    EXPECT_TRUE(matches(Kind::kRegex, "caf\u00e9", "caf\u00e9"));
    Guide guide = compile(*factory_, Kind::kRegex, "[ab]{2}");
    EXPECT_EQ(follow(guide, "ab"), 2U);
    EXPECT_TRUE(guide.finished());
    std::vector<std::uint32_t> bits(10, 7);
    EXPECT_TRUE(guide.mask(bits));
    EXPECT_EQ(bits, std::vector<std::uint32_t>(10, 0));
}

TEST_F(GuideTest, AChoiceIsOneOfItsTexts) {
    const std::string odd =
        R"j(["red","a.b*(c)","two\nlines","\"quoted\\\"","é/ß"," lead","red-ish"])j";
    for (const std::string_view one :
         {"red", "a.b*(c)", "two\nlines", "\"quoted\\\"", "é/ß", " lead"}) {
        EXPECT_TRUE(matches(Kind::kChoice, odd, one)) << one;
    }
    EXPECT_FALSE(matches(Kind::kChoice, odd, "axb"));
    EXPECT_FALSE(matches(Kind::kChoice, odd, "blue"));
    EXPECT_TRUE(matches(Kind::kChoice, odd, "red-ish"));
}

TEST_F(GuideTest, ALarkGrammarIsFollowed) {
    const std::string sums = "start: sum\nsum: NUM (\"+\" NUM)*\nNUM: /[0-9]+/\n";
    EXPECT_TRUE(matches(Kind::kLark, sums, "12+7+300"));
    EXPECT_FALSE(matches(Kind::kLark, sums, "12+"));
}

TEST_F(GuideTest, SpecialTokensAreNoText) {
    Guide guide = compile(*factory_, Kind::kRegex, "(.|\\n)*");
    EXPECT_TRUE(allows(guide, '<'));
    EXPECT_FALSE(allows(guide, ByteTokenizer::kEnd + 1));
    EXPECT_EQ(follow(guide, "<|im_start|>"), 12U);
}

TEST_F(GuideTest, CopiesGoTheirOwnWays) {
    Guide one = compile(*factory_, Kind::kChoice, R"(["aa","ab"])");
    EXPECT_EQ(follow(one, "a"), 1U);
    auto two = one.copy();
    ASSERT_TRUE(two);
    EXPECT_EQ(follow(one, "a"), 1U);
    EXPECT_EQ(follow(*two, "b"), 1U);
    EXPECT_TRUE(one.finished());
    EXPECT_TRUE(two->finished());
}

TEST_F(GuideTest, ARefusedTokenLeavesTheGuideWhereItWas) {
    Guide guide = compile(*factory_, Kind::kChoice, R"(["yes"])");
    const auto refused = guide.accept('n');
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInternal);
    EXPECT_EQ(follow(guide, "yes"), 3U);
}

TEST_F(GuideTest, ThinkingIsFreeUpToItsMark) {
    Guide guide = compile(*factory_, Kind::kChoice, R"(["yes","no"])", "</think>");
    const std::string_view thought = "Is <it> so? </thin </think>";
    for (const char c : thought) {
        EXPECT_FALSE(guide.may_end());
        EXPECT_FALSE(allows(guide, ByteTokenizer::kEnd));
        ASSERT_TRUE(allows(guide, static_cast<unsigned char>(c)));
        ASSERT_TRUE(guide.accept(static_cast<unsigned char>(c)));
    }
    EXPECT_FALSE(allows(guide, 'x'));
    EXPECT_EQ(follow(guide, "yes"), 3U);
    EXPECT_TRUE(guide.finished());
}

TEST_F(GuideTest, TheMarksLastTokenMayCarryMore) {
    const Texts tokenizer({"</", "think", ">", ">\n\n", ">{", ">x", "> \"", "</think>",
                           "</think>no", "</think>z", "{", "}", "yes", "no", "t", "<", "/",
                           "hink>yes"});
    auto factory = GuideFactory::make(tokenizer);
    ASSERT_TRUE(factory);
    const auto begin = [&](Kind kind, std::string text) {
        return compile(**factory, kind, std::move(text), "</think>");
    };
    const auto allowed = [&](Guide& guide, std::string_view token) {
        std::vector<std::uint32_t> bits(2);
        EXPECT_TRUE(guide.mask(bits));
        const TokenId id = tokenizer.id(token);
        return (bits[id / 32] >> (id % 32) & 1U) != 0;
    };

    Guide object = begin(Kind::kJsonObject, "");
    ASSERT_TRUE(allowed(object, ">x"));  // no mark before it
    ASSERT_TRUE(object.accept(tokenizer.id(">x")));
    ASSERT_TRUE(object.accept(tokenizer.id("</")));
    ASSERT_TRUE(object.accept(tokenizer.id("think")));
    EXPECT_TRUE(allowed(object, ">"));
    EXPECT_TRUE(allowed(object, ">\n\n"));
    EXPECT_TRUE(allowed(object, ">{"));
    EXPECT_FALSE(allowed(object, ">x"));
    EXPECT_FALSE(allowed(object, "> \""));
    ASSERT_TRUE(object.accept(tokenizer.id(">{")));
    EXPECT_TRUE(allowed(object, "}"));
    EXPECT_FALSE(allowed(object, "{"));
    ASSERT_TRUE(object.accept(tokenizer.id("}")));
    EXPECT_TRUE(object.may_end());

    Guide choice = begin(Kind::kChoice, R"(["yes","no"])");
    EXPECT_TRUE(allowed(choice, "</think>no"));
    EXPECT_FALSE(allowed(choice, "</think>z"));
    ASSERT_TRUE(choice.accept(tokenizer.id("</think>no")));
    EXPECT_TRUE(choice.finished());

    Guide blanks = begin(Kind::kChoice, R"(["yes","no"])");
    ASSERT_TRUE(blanks.accept(tokenizer.id("</")));
    ASSERT_TRUE(blanks.accept(tokenizer.id("think")));
    ASSERT_TRUE(blanks.accept(tokenizer.id(">\n\n")));
    EXPECT_TRUE(allowed(blanks, "yes"));
    EXPECT_FALSE(allowed(blanks, "{"));

    Guide split = begin(Kind::kChoice, R"(["yes","no"])");
    ASSERT_TRUE(split.accept(tokenizer.id("</")));
    ASSERT_TRUE(split.accept(tokenizer.id("t")));
    ASSERT_TRUE(split.accept(tokenizer.id("hink>yes")));
    EXPECT_TRUE(split.finished());
}

TEST_F(GuideTest, BrokenConstraintsAreRefusedWithAReason) {
    const GuideFactory& f = *factory_;
    const auto has = [](const std::string& text, std::string_view part) {
        return text.find(part) != std::string::npos;
    };
    EXPECT_TRUE(has(why_not(f, Kind::kJsonSchema, "{"), "not JSON"));
    EXPECT_TRUE(has(why_not(f, Kind::kJsonSchema, "3"), "object"));
    EXPECT_TRUE(has(why_not(f, Kind::kJsonSchema, R"({"type":"strnig"})"), "strnig"));
    EXPECT_TRUE(has(why_not(f, Kind::kJsonSchema, R"({"not":{"type":"null"}})"), "not"));
    EXPECT_TRUE(has(why_not(f, Kind::kRegex, "a(b"), "regex"));
    EXPECT_TRUE(has(why_not(f, Kind::kRegex, "(?=a)b"), "look-around"));
    EXPECT_NE(why_not(f, Kind::kRegex, "a[^\\s\\S]"), "compiled");
    EXPECT_TRUE(has(why_not(f, Kind::kChoice, "[]"), "no choice"));
    EXPECT_TRUE(has(why_not(f, Kind::kChoice, R"([""])"), "empty"));
    EXPECT_TRUE(has(why_not(f, Kind::kChoice, "[1]"), "strings"));
    EXPECT_TRUE(has(why_not(f, Kind::kLark, "start: missing"), "missing"));
    EXPECT_TRUE(has(why_not(f, Kind::kLark, "root ::= \"a\""), ""));
    EXPECT_TRUE(has(why_not(f, static_cast<Kind>(9), "x"), "unknown"));
    EXPECT_TRUE(has(why_not(f, Kind::kRegex, std::string(300'000, 'a')), "262144"));
    EXPECT_TRUE(
        has(why_not(f, Kind::kJsonSchema, R"({"type":"string","const":5})"), "nsatisfiable"));
    EXPECT_TRUE(has(why_not(f, Kind::kJsonSchema, R"({"type":"integer","minimum":5,"maximum":3})"),
                    "inimum"));
}

TEST_F(GuideTest, NothingIsFetchedForAReference) {
    for (const std::string_view where :
         {"http://127.0.0.1:1/schema.json", "https://json-schema.org/x.json",
          "file:///etc/hostname", "other.json", "/etc/hostname", "#/$defs/missing"}) {
        const std::string schema = "{\"$ref\":\"" + std::string(where) + "\"}";
        EXPECT_NE(why_not(*factory_, Kind::kJsonSchema, schema), "compiled") << where;
    }
}

TEST_F(GuideTest, ReferencesInTheSchemaMayRecur) {
    const std::string tree =
        R"({"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"k":{"type":"array",)"
        R"("items":{"$ref":"#/$defs/t"}}},"required":["k"],"additionalProperties":false}}})";
    EXPECT_TRUE(matches(Kind::kJsonSchema, tree, R"({"k":[{"k":[]},{"k":[{"k":[]}]}]})"));
    EXPECT_NE(why_not(*factory_, Kind::kJsonSchema, R"({"$ref":"#"})"), "");
}

/// Every one of these must come to an end, with a guide or a reason, in bounded time.
TEST_F(GuideTest, ExplodingConstraintsEnd) {
    const auto repeat = [](std::string_view text, int n) {
        std::string out;
        for (int i = 0; i < n; ++i) out += text;
        return out;
    };
    std::vector<std::pair<Kind, std::string>> bad;
    bad.emplace_back(Kind::kJsonSchema, repeat(R"({"items":)", 120) + "true" + repeat("}", 120));
    bad.emplace_back(Kind::kJsonSchema, repeat(R"({"items":)", 5000) + "true" + repeat("}", 5000));
    bad.emplace_back(Kind::kJsonSchema, repeat("[", 100'000));
    bad.emplace_back(Kind::kJsonSchema,
                     R"({"type":"array","minItems":1000000,"items":{"type":"integer"}})");
    bad.emplace_back(Kind::kJsonSchema,
                     R"({"type":"array","maxItems":1000000000000,"items":{"type":"integer"}})");
    bad.emplace_back(Kind::kJsonSchema, R"({"type":"string","maxLength":1000000000})");
    bad.emplace_back(Kind::kJsonSchema, R"({"type":"string","minLength":100000})");
    bad.emplace_back(Kind::kJsonSchema,
                     R"({"type":"string","pattern":"(a|aa)*(b|bb)*.{500}c.{500}"})");
    bad.emplace_back(Kind::kJsonSchema, R"({"type":"number","multipleOf":0.000000000001})");
    bad.emplace_back(Kind::kJsonSchema, R"({"type":"integer","multipleOf":999999999999})");
    bad.emplace_back(Kind::kRegex, "(x+x+)+y");
    bad.emplace_back(Kind::kRegex, "((a{1,100}){1,100}){1,100}");
    bad.emplace_back(Kind::kRegex, "(a|b)*a(a|b){20}");
    bad.emplace_back(Kind::kRegex, repeat("(", 10'000) + "a" + repeat(")*", 10'000));
    bad.emplace_back(Kind::kRegex, repeat("(", 120) + "a" + repeat(")*", 120));
    bad.emplace_back(Kind::kRegex, repeat("a?", 5000) + repeat("a", 5000));
    bad.emplace_back(Kind::kRegex, repeat("a|", 100'000) + "b");
    bad.emplace_back(Kind::kRegex, repeat("(a|b)", 40'000));
    bad.emplace_back(Kind::kLark, "start: " + repeat("(", 10'000));
    bad.emplace_back(Kind::kLark, "start: " + repeat("(", 120) + "\"a\"" + repeat(")*", 120));
    bad.emplace_back(Kind::kLark, "start: start start | \"a\"");
    bad.emplace_back(Kind::kLark, "start: \"\" | start start start");
    bad.emplace_back(Kind::kLark, repeat("start: \"a\"\n", 20'000));
    std::string enumeration = R"({"enum":[)";
    for (int i = 0; i < 15'000; ++i) enumeration += fmt::format("{}\"value {}\"", i ? "," : "", i);
    bad.emplace_back(Kind::kJsonSchema, enumeration + "]}");
    std::string chain = R"({"$ref":"#/$defs/a0","$defs":{)";
    for (int i = 0; i < 1900; ++i)
        chain += fmt::format(R"("a{}":{{"$ref":"#/$defs/a{}"}},)", i, i + 1);
    bad.emplace_back(Kind::kJsonSchema, chain + R"("a1900":{"type":"null"}}})");
    std::string siblings = R"({"$ref":"#/$defs/a0","$defs":{)";
    for (int i = 0; i < 1900; ++i) {
        siblings += fmt::format(R"("a{}":{{"type":"object","$ref":"#/$defs/a{}"}},)", i, i + 1);
    }
    bad.emplace_back(Kind::kJsonSchema, siblings + R"("a1900":{"type":"object"}}})");
    std::string product = R"({"allOf":[)";
    for (int i = 0; i < 12; ++i) {
        product += fmt::format(
            R"({}{{"anyOf":[{{"required":["a{}"]}},{{"required":["b{}"]}},{{"required":["c{}"]}}]}})",
            i ? "," : "", i, i, i);
    }
    bad.emplace_back(Kind::kJsonSchema, product + "]}");
    std::string nulls = R"({"allOf":[{"type":"object","properties":{)";
    for (int i = 0; i < 3000; ++i)
        nulls += fmt::format(R"({}"property{}":{{"type":"string"}})", i ? "," : "", i);
    nulls += R"(}},{"anyOf":[)";
    for (int i = 0; i < 4000; ++i) nulls += fmt::format(R"({}{{"type":"null"}})", i ? "," : "");
    bad.emplace_back(Kind::kJsonSchema, nulls + "]}]}");
    bad.emplace_back(
        Kind::kJsonSchema,
        R"({"type":"object","patternProperties":{"^(a|b)*c{1,50}$":{},"^(b|a)*d{1,50}$":{}}})");

    std::vector<std::uint32_t> bits(10);
    for (auto& [kind, text] : bad) {
        const std::string name = text.substr(0, 60);
        // Of the processor: the machine may be busy with other things.
        const std::clock_t start = std::clock();
        auto guide = factory_->compile({kind, std::move(text), {}});
        int steps = 0;
        std::string end;
        if (guide) {
            // Always the first token that may come.
            for (; steps < 300 && !guide->finished(); ++steps) {
                auto ok = guide->mask(bits);
                if (!ok) {
                    end = ok.error().message;
                    break;
                }
                TokenId token = 0;
                while (token < 256 && (bits[token / 32] >> (token % 32) & 1U) == 0) ++token;
                if (token >= 256) break;
                if (ok = guide->accept(token); !ok) {
                    end = ok.error().message;
                    break;
                }
            }
        } else {
            end = guide.error().message;
        }
        const auto seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        EXPECT_LT(seconds, 20) << name << ": " << steps << " steps, " << end;
    }
}

}  // namespace
}  // namespace stator::text
