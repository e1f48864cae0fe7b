// Random schemas, random choices among the tokens that the mask leaves: what comes out must be
// valid, by a checker that knows nothing of grammars.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "stator/codec/json.h"
#include "stator/text/guides/guide.h"
#include "stator/text/guides/guide_fixture.h"

namespace stator::text {
namespace {

using codec::JsonType;
using codec::JsonView;
using guides::Texts;

/// A schema of a small language: enough to be wrong in many ways.
struct Schema {
    enum class Type { kNull, kBoolean, kInteger, kNumber, kString, kEnum, kArray, kObject, kAnyOf };
    struct Property;

    Type type = Type::kNull;
    std::int64_t low = 0;
    std::int64_t high = 0;
    std::vector<Schema> parts;  ///< an array's items (one), a union's options
    std::vector<Property> properties;

    [[nodiscard]] std::string json() const;
    [[nodiscard]] bool holds(JsonView v) const;
};

struct Schema::Property {
    std::string name;
    Schema schema;
    bool required = true;
};

std::string Schema::json() const {
    switch (type) {
        case Type::kNull:
            return R"({"type":"null"})";
        case Type::kBoolean:
            return R"({"type":"boolean"})";
        case Type::kInteger:
            return fmt::format(R"({{"type":"integer","minimum":{},"maximum":{}}})", low, high);
        case Type::kNumber:
            return fmt::format(R"({{"type":"number","minimum":{},"exclusiveMaximum":{}}})", low,
                               high);
        case Type::kString:
            return fmt::format(R"({{"type":"string","minLength":{},"maxLength":{}}})", low, high);
        case Type::kEnum:
            return fmt::format(R"({{"enum":["a\"b",{},"two words",null]}})", low);
        case Type::kArray:
            return fmt::format(R"({{"type":"array","minItems":{},"maxItems":{},"items":{}}})", low,
                               high, parts[0].json());
        case Type::kAnyOf: {
            std::string out = R"({"anyOf":[)";
            for (const Schema& s : parts) out += (&s == parts.data() ? "" : ",") + s.json();
            return out + "]}";
        }
        case Type::kObject: {
            std::string names;
            std::string required;
            for (const Property& p : properties) {
                names +=
                    fmt::format("{}\"{}\":{}", names.empty() ? "" : ",", p.name, p.schema.json());
                if (p.required) {
                    required += fmt::format("{}\"{}\"", required.empty() ? "" : ",", p.name);
                }
            }
            return fmt::format(R"({{"type":"object","properties":{{{}}},"required":[{}],)"
                               R"("additionalProperties":false}})",
                               names, required);
        }
    }
    return {};
}

std::size_t characters(std::string_view text) {
    std::size_t n = 0;
    for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
    return n;
}

bool Schema::holds(JsonView v) const {
    switch (type) {
        case Type::kNull:
            return v.present() && v.type() == JsonType::kNull;
        case Type::kBoolean:
            return v.as_bool().has_value();
        case Type::kInteger: {
            const auto n = v.as_double();
            return n && *n == std::floor(*n) && *n >= static_cast<double>(low) &&
                   *n <= static_cast<double>(high);
        }
        case Type::kNumber: {
            const auto n = v.as_double();
            return n && *n >= static_cast<double>(low) && *n <= static_cast<double>(high);
        }
        case Type::kString: {
            const auto s = v.as_string();
            if (!s) return false;
            const auto n = static_cast<std::int64_t>(characters(*s));
            return n >= low && n <= high;
        }
        case Type::kEnum:
            return v.as_string() == "a\"b" || v.as_string() == "two words" || v.as_int() == low ||
                   (v.present() && v.is_null());
        case Type::kArray: {
            const auto n = static_cast<std::int64_t>(v.size());
            if (v.type() != JsonType::kArray || n < low || n > high) return false;
            bool all = true;
            v.each_element([&](std::size_t, JsonView e) { return all = parts[0].holds(e); });
            return all;
        }
        case Type::kAnyOf:
            for (const Schema& s : parts) {
                if (s.holds(v)) return true;
            }
            return false;
        case Type::kObject: {
            if (v.type() != JsonType::kObject) return false;
            std::size_t known = 0;
            for (const Property& p : properties) {
                const JsonView member = v.find(p.name);
                if (!member.present()) {
                    if (p.required) return false;
                    continue;
                }
                ++known;
                if (!p.schema.holds(member)) return false;
            }
            return known == v.size();
        }
    }
    return false;
}

class Draw {
  public:
    explicit Draw(std::uint32_t seed) : random_(seed) {}

    std::int64_t number(std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
    }

    Schema schema(int depth) {
        Schema s;
        s.type = static_cast<Schema::Type>(number(0, depth > 0 ? 8 : 5));
        switch (s.type) {
            case Schema::Type::kInteger:
            case Schema::Type::kNumber:
                s.low = number(-1000, 1000);
                s.high = s.low + 1 + number(0, 100'000);
                break;
            case Schema::Type::kString:
                s.low = number(0, 4);
                s.high = s.low + number(0, 6);
                break;
            case Schema::Type::kEnum:
                s.low = number(-5, 5);
                break;
            case Schema::Type::kArray:
                s.low = number(0, 2);
                s.high = s.low + number(0, 2);
                s.parts.push_back(schema(depth - 1));
                break;
            case Schema::Type::kAnyOf:
                for (std::int64_t n = number(1, 3); n > 0; --n)
                    s.parts.push_back(schema(depth - 1));
                break;
            case Schema::Type::kObject:
                for (std::int64_t n = number(0, 3); n > 0; --n) {
                    s.properties.push_back(
                        {fmt::format("p{}", n), schema(depth - 1), number(0, 3) != 0});
                }
                break;
            case Schema::Type::kNull:
            case Schema::Type::kBoolean:
                break;
        }
        return s;
    }

    /// One of the set bits, or nothing where there is none.
    std::optional<TokenId> one_of(std::span<const std::uint32_t> bits) {
        choices_.clear();
        for (std::size_t i = 0; i < bits.size() * 32; ++i) {
            if ((bits[i / 32] >> (i % 32) & 1U) != 0) choices_.push_back(static_cast<TokenId>(i));
        }
        if (choices_.empty()) return std::nullopt;
        return choices_[static_cast<std::size_t>(
            number(0, static_cast<std::int64_t>(choices_.size()) - 1))];
    }

  private:
    std::mt19937 random_;
    std::vector<TokenId> choices_;
};

/// All bytes but 0xFF, and pieces that cross every border of JSON.
const Texts& vocabulary() {
    static const Texts kTexts = [] {
        std::vector<std::string> texts;
        for (int c = 0; c < 255; ++c) texts.emplace_back(1, static_cast<char>(c));
        for (const char* t :
             {"{\"", "\":",      "\": ",    "\",",      "\"}",  "\"]",   "],",   "}]",
              "}}",  "[[",       "[{",      "null",     "true", "false", "1",    "12",
              "123", "0.",       "-1",      "e1",       ", ",   ",\n  ", "{\n",  "p1",
              "p2",  "p3\"",     "\"p1\":", "abc",      "é",    "\\n",   "\\\"", "two words",
              "two", " words\"", "日本",    "\xe6\x97", "]}"}) {
            texts.emplace_back(t);
        }
        return Texts(std::move(texts));
    }();
    return kTexts;
}

TEST(GuideProperty, WhatTheMaskAllowsIsValid) {
    const Texts& texts = vocabulary();
    const auto factory = GuideFactory::make(texts);
    ASSERT_TRUE(factory);
    EXPECT_TRUE(rc::check([&](std::uint32_t seed) {
        Draw draw(seed);
        const Schema schema = draw.schema(3);
        const bool thinks = draw.number(0, 3) == 0;
        auto guide = (*factory)->compile(
            {protocol::OutputConstraint::Kind::kJsonSchema, schema.json(), thinks ? "x{\"" : ""});
        if (!guide) RC_FAIL(schema.json() + ": " + guide.error().message);
        std::string text;
        std::vector<std::uint32_t> bits(texts.vocab_size() / 32 + 1);
        // Numbers may have as many digits as they like: a text is let go on for a while only.
        for (int steps = 0; steps < 3000 && !guide->finished(); ++steps) {
            const auto ok = guide->mask(bits);
            if (!ok) RC_FAIL(text + ": " + ok.error().message);
            RC_ASSERT(((bits[texts.end() / 32] >> (texts.end() % 32) & 1U) != 0) ==
                      guide->may_end());
            const auto token = draw.one_of(bits);
            RC_ASSERT(token.has_value());
            if (*token == texts.end()) break;
            text += texts.bytes(*token);
            const auto taken = guide->accept(*token);
            if (!taken) RC_FAIL(text + ": " + taken.error().message);
        }
        if (thinks) {
            const std::size_t mark = text.find("x{\"");
            if (mark == std::string::npos) return;  // thought all the time
            text.erase(0, mark + 3);
        }
        if (!guide->finished() && !guide->may_end()) return;
        codec::JsonDocument document;
        const auto parsed = document.parse(text);
        if (!parsed) RC_FAIL(text + ": " + parsed.error().message);
        if (!schema.holds(*parsed)) RC_FAIL(text + " against " + schema.json());
    }));
}

/// The mask is right in both directions: a token is allowed exactly where the guide accepts it.
TEST(GuideProperty, TheMaskSaysWhatIsAccepted) {
    const Texts& texts = vocabulary();
    const auto factory = GuideFactory::make(texts);
    ASSERT_TRUE(factory);
    EXPECT_TRUE(rc::check([&](std::uint32_t seed) {
        Draw draw(seed);
        auto guide = (*factory)->compile(
            {protocol::OutputConstraint::Kind::kJsonSchema, draw.schema(2).json(), ""});
        RC_ASSERT(guide.has_value());
        std::vector<std::uint32_t> bits(texts.vocab_size() / 32 + 1);
        for (int steps = 0; steps < 12 && !guide->finished(); ++steps) {
            RC_ASSERT(guide->mask(bits).has_value());
            for (TokenId token = 0; token < texts.end(); ++token) {
                auto copy = guide->copy();
                RC_ASSERT(copy.has_value());
                const bool allowed = (bits[token / 32] >> (token % 32) & 1U) != 0;
                RC_ASSERT(copy->accept(token).has_value() == allowed);
            }
            const auto token = draw.one_of(bits);
            if (!token || *token == texts.end()) break;
            RC_ASSERT(guide->accept(*token).has_value());
        }
    }));
}

}  // namespace
}  // namespace stator::text
