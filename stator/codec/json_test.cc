#include "stator/codec/json.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <bit>
#include <cmath>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "stator/codec/json_fault.h"
#include "stator/codec/json_writer.h"

namespace stator::codec {
namespace {

std::string refusal(std::string_view text) {
    JsonDocument doc;
    const auto r = doc.parse(text);
    if (r) return "accepted";
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    return r.error().message;
}

TEST(Json, ReadsEveryType) {
    JsonDocument doc;
    const auto root = doc.parse(
        R"( {"n":null,"t":true,"f":false,"i":-5,"u":18446744073709551615,"d":2.5,"s":"a\u00e9\n","a":[1,2,3],"o":{"x":{}}} )");
    ASSERT_TRUE(root) << root.error().message;
    EXPECT_EQ(root->type(), JsonType::kObject);
    EXPECT_EQ(root->size(), 9U);
    EXPECT_TRUE(root->find("n").present());
    EXPECT_TRUE(root->find("n").is_null());
    EXPECT_EQ(root->find("t").as_bool(), true);
    EXPECT_EQ(root->find("f").as_bool(), false);
    EXPECT_EQ(root->find("i").type(), JsonType::kInt);
    EXPECT_EQ(root->find("i").as_int(), -5);
    EXPECT_EQ(root->find("i").as_uint(), std::nullopt);
    EXPECT_EQ(root->find("i").as_double(), -5.0);
    EXPECT_EQ(root->find("u").type(), JsonType::kUint);
    EXPECT_EQ(root->find("u").as_uint(), 18446744073709551615U);
    EXPECT_EQ(root->find("u").as_int(), std::nullopt);
    EXPECT_EQ(root->find("d").as_double(), 2.5);
    EXPECT_EQ(root->find("d").as_int(), std::nullopt);
    EXPECT_EQ(root->find("s").as_string(), "aé\n");
    EXPECT_EQ(root->find("s").as_double(), std::nullopt);
    EXPECT_EQ(root->find("a").size(), 3U);
    EXPECT_EQ(root->find("o").find("x").size(), 0U);
    EXPECT_EQ(root->find("o").find("x").type(), JsonType::kObject);
}

TEST(Json, AbsentViewsAnswerEverything) {
    const JsonView absent;
    EXPECT_FALSE(absent.present());
    EXPECT_TRUE(absent.is_null());
    EXPECT_EQ(absent.type(), JsonType::kNull);
    EXPECT_EQ(absent.as_bool(), std::nullopt);
    EXPECT_EQ(absent.as_int(), std::nullopt);
    EXPECT_EQ(absent.as_uint(), std::nullopt);
    EXPECT_EQ(absent.as_double(), std::nullopt);
    EXPECT_EQ(absent.as_string(), std::nullopt);
    EXPECT_FALSE(absent.find("x").present());
    EXPECT_EQ(absent.size(), 0U);
    absent.each_element([](std::size_t, JsonView) {
        ADD_FAILURE();
        return false;
    });
    absent.each_member([](std::string_view, JsonView) {
        ADD_FAILURE();
        return false;
    });

    JsonDocument doc;
    const JsonView array = doc.parse("[1]").value();
    EXPECT_FALSE(array.find("1").present());
    EXPECT_FALSE(array.find("").present());
}

TEST(Json, IteratesInOrderAndStops) {
    JsonDocument doc;
    const JsonView array = doc.parse("[5,6,7]").value();
    std::vector<std::pair<std::size_t, std::int64_t>> seen;
    array.each_element([&](std::size_t i, JsonView v) {
        seen.emplace_back(i, v.as_int().value());
        return i < 1;
    });
    EXPECT_EQ(seen, (std::vector<std::pair<std::size_t, std::int64_t>>{{0, 5}, {1, 6}}));
    array.each_member([](std::string_view, JsonView) {
        ADD_FAILURE();
        return false;
    });

    const JsonView object = doc.parse(R"({"b":1,"a\n":2,"c":3})").value();
    std::string keys;
    object.each_member([&](std::string_view k, JsonView v) {
        keys += k;
        return v.as_int() != 2;
    });
    EXPECT_EQ(keys, "ba\n");
    object.each_element([](std::size_t, JsonView) {
        ADD_FAILURE();
        return false;
    });
}

TEST(Json, FirstOfDuplicateKeysWins) {
    JsonDocument doc;
    const JsonView root = doc.parse(R"({"a":1,"a":2})").value();
    EXPECT_EQ(root.find("a").as_int(), 1);
    EXPECT_EQ(root.size(), 2U);
}

TEST(Json, KeysAreComparedUnescapedAndWhole) {
    JsonDocument doc;
    const JsonView root = doc.parse(R"({"ab":1,"\u0061":2,"a\u0000b":3})").value();
    EXPECT_EQ(root.find("a").as_int(), 2);
    EXPECT_EQ(root.find("ab").as_int(), 1);
    EXPECT_EQ(root.find(std::string_view("a\0b", 3)).as_int(), 3);
    EXPECT_FALSE(root.find("").present());
}

TEST(Json, RefusalsSayWhatAndWhere) {
    const std::string at = "The text is not valid JSON: at byte ";
    EXPECT_EQ(refusal(""), at + "0, expected a value but the text ends.");
    EXPECT_EQ(refusal(" \n "), at + "3, expected a value but the text ends.");
    EXPECT_EQ(refusal("[1] x"),
              at + "4, expected the end of the text after the value but found 'x'.");
    EXPECT_EQ(refusal("[1 2]"), at + "3, expected ',' or ']' but found '2'.");
    EXPECT_EQ(refusal("[1,]"), at + "3, expected a value but found ']'.");
    EXPECT_EQ(refusal("[,1]"), at + "1, expected ']' or a value but found ','.");
    EXPECT_EQ(refusal("{\"a\":1,}"), at + "7, expected a key in double quotes but found '}'.");
    EXPECT_EQ(refusal("{a:1}"), at + "1, expected '}' or a key in double quotes but found 'a'.");
    EXPECT_EQ(refusal("{\"a\" 1}"), at + "5, expected ':' but found '1'.");
    EXPECT_EQ(refusal("{\"a\":1"), at + "6, expected ',' or '}' but the text ends.");
    EXPECT_EQ(refusal("nul"), at + "3, expected null but the text ends.");
    EXPECT_EQ(refusal("nulll"), at + "4, expected a delimiter after null but found 'l'.");
    EXPECT_EQ(refusal("'a'"), at + "0, expected a value but found '''.");
    EXPECT_EQ(refusal("[\"abc]"), at + "1, a string begins that never ends.");
    EXPECT_EQ(refusal("\"a\tb\""),
              at + "2, a string has the control character 0x09, which must be escaped.");
    EXPECT_EQ(refusal("\"\\x\""),
              at + "2, expected one of \"\\/bfnrtu after a backslash but found 'x'.");
    EXPECT_EQ(refusal("\"\\u12g4\""),
              at + "5, expected four hexadecimal digits after \\u but found 'g'.");
    EXPECT_EQ(refusal("\"a\xff\""), at + "2, byte 0xFF is not valid UTF-8.");
    EXPECT_EQ(refusal("\"\xed\xa0\x80\""), at + "1, byte 0xED is not valid UTF-8.");
    EXPECT_EQ(refusal("\xEF\xBB\xBF{}"),
              at + "0, there is a byte order mark, which JSON must not have.");
    EXPECT_EQ(refusal("[01]"), at + "1, a number begins with a superfluous 0.");
    EXPECT_EQ(refusal("-"), at + "1, expected a digit after '-' but the text ends.");
    EXPECT_EQ(refusal("1."), at + "2, expected a digit after the decimal point but the text ends.");
    EXPECT_EQ(refusal("1e+"), at + "3, expected a digit in the exponent but the text ends.");
    EXPECT_EQ(refusal("18446744073709551616"), at + "0, an integer does not fit 64 bits.");
    EXPECT_EQ(refusal("[-9223372036854775809]"), at + "1, an integer does not fit 64 bits.");
    EXPECT_EQ(refusal("1e400"), at + "0, a number is too large for a double.");
    const std::string half =
        ", the escape \\u{} is half of a surrogate pair and its other half is missing.";
    for (const std::string unit : {"d800", "dc00", "dfff", "dbff"}) {
        EXPECT_EQ(refusal("\"\\u" + unit + "\""), at + "1" + fmt::format(fmt::runtime(half), unit));
    }
    EXPECT_NE(refusal(R"("\ud800\u0041")"), "accepted");
    EXPECT_NE(refusal(R"("\ud800\ud800")"), "accepted");
}

TEST(Json, DepthIsBounded) {
    JsonDocument doc;
    const auto nested = [](std::size_t n, std::string_view inner, char open, char close) {
        return std::string(n, open) + std::string(inner) + std::string(n, close);
    };
    EXPECT_TRUE(doc.parse(nested(JsonDocument::kMaxDepth, "1", '[', ']')));
    EXPECT_EQ(
        refusal(nested(JsonDocument::kMaxDepth + 1, "1", '[', ']')),
        "The text is not valid JSON: at byte 64, objects and arrays are nested more than 64 deep.");
    EXPECT_NE(refusal(std::string(1'000'000, '[')), "accepted");
    std::string objects;
    for (std::size_t i = 0; i <= JsonDocument::kMaxDepth; ++i) objects += "{\"a\":";
    EXPECT_NE(refusal(objects + "1" + std::string(JsonDocument::kMaxDepth + 1, '}')), "accepted");
    // Depth counts what is open, not what has been.
    std::string siblings = "[";
    for (int i = 0; i < 1000; ++i) siblings += "[[1]],";
    EXPECT_TRUE(doc.parse(siblings + "0]"));
}

TEST(Json, NumbersAtTheEdges) {
    JsonDocument doc;
    EXPECT_EQ(doc.parse("9223372036854775807")->as_int(), INT64_MAX);
    EXPECT_EQ(doc.parse("-9223372036854775808")->as_int(), INT64_MIN);
    EXPECT_EQ(doc.parse("9223372036854775808")->type(), JsonType::kUint);
    EXPECT_EQ(doc.parse("1e-400")->as_double(), 0.0);
    EXPECT_TRUE(std::signbit(doc.parse("-0.0")->as_double().value()));
    EXPECT_EQ(doc.parse("1.7976931348623157e308")->as_double(), 1.7976931348623157e308);
    EXPECT_EQ(doc.parse("1.0")->type(), JsonType::kDouble);
    EXPECT_EQ(doc.parse("1.0")->as_int(), std::nullopt);
}

TEST(Json, ManyElementsAreCountedBeyondTheParsersCounter) {
    constexpr std::size_t kMany = 0xFFFFFF + 5;
    std::string text = "[0";
    for (std::size_t i = 1; i < kMany; ++i) text += ",0";
    JsonDocument doc;
    const auto root = doc.parse(text + "]");
    ASSERT_TRUE(root);
    EXPECT_EQ(root->size(), kMany);
}

TEST(Json, BuffersGrowAndShrink) {
    JsonDocument doc;
    EXPECT_EQ(doc.capacity_bytes(), 0U);
    ASSERT_TRUE(doc.parse("[]"));
    const std::size_t small = doc.capacity_bytes();
    EXPECT_GT(small, 0U);
    EXPECT_LT(small, 256U * 1024);
    ASSERT_TRUE(doc.parse('"' + std::string(3'000'000, 'a') + '"'));
    EXPECT_GT(doc.capacity_bytes(), 3'000'000U);
    ASSERT_TRUE(doc.parse("[]"));
    EXPECT_GT(doc.capacity_bytes(), 3'000'000U);
    doc.shrink();
    EXPECT_EQ(doc.capacity_bytes(), 0U);
    EXPECT_EQ(doc.parse("7")->as_int(), 7);
}

TEST(Json, ViewsSurviveAMoveAndDocumentsARefusal) {
    JsonDocument first;
    const JsonView view = first.parse(R"(["kept"])").value();
    JsonDocument second = std::move(first);
    std::string seen;
    view.each_element([&](std::size_t, JsonView v) {
        seen += v.as_string().value_or("?");
        return true;
    });
    EXPECT_EQ(seen, "kept");
    EXPECT_FALSE(second.parse("[1,"));
    EXPECT_EQ(second.parse("8")->as_int(), 8);
    EXPECT_EQ(first.parse("9")->as_int(), 9);  // NOLINT(bugprone-use-after-move): must still work
}

// --- properties
// ------------------------------------------------------------------------------------------------------

/// A JSON value as plain data, to hold the reader and the writer against.
struct Value {
    using Members = std::vector<std::pair<std::string, Value>>;
    std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string,
                 std::vector<Value>, Members>
        v;
};

std::string random_text() {
    std::string s;
    const int n = *rc::gen::inRange(0, 20);
    for (int i = 0; i < n; ++i) {
        const auto c = *rc::gen::oneOf(rc::gen::inRange<char32_t>(0, 0x80),
                                       rc::gen::inRange<char32_t>(0x80, 0xD800),
                                       rc::gen::inRange<char32_t>(0xE000, 0x110000));
        if (c < 0x80) {
            s += static_cast<char>(c);
        } else if (c < 0x800) {
            s += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
        } else if (c < 0x10000) {
            s += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
                  static_cast<char>(0x80 | (c & 63))};
        } else {
            s += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
                  static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
        }
    }
    return s;
}

Value random_value(int depth) {
    Value value;
    switch (*rc::gen::inRange(0, depth > 0 ? 8 : 6)) {
        case 0:
            break;
        case 1:
            value.v = *rc::gen::arbitrary<bool>();
            break;
        case 2:
            value.v = *rc::gen::arbitrary<std::int64_t>();
            break;
        case 3:
            value.v = *rc::gen::arbitrary<std::uint64_t>() | (std::uint64_t{1} << 63);
            break;
        case 4: {
            const auto d = std::bit_cast<double>(*rc::gen::arbitrary<std::uint64_t>());
            value.v = std::isfinite(d) ? d : static_cast<double>(*rc::gen::arbitrary<int>());
            break;
        }
        case 5:
            value.v = random_text();
            break;
        case 6: {
            auto& children = value.v.emplace<std::vector<Value>>();
            const int n = *rc::gen::inRange(0, 5);
            for (int i = 0; i < n; ++i) children.push_back(random_value(depth - 1));
            break;
        }
        case 7: {
            auto& members = value.v.emplace<Value::Members>();
            const int n = *rc::gen::inRange(0, 5);
            for (int i = 0; i < n; ++i)
                members.emplace_back(random_text(), random_value(depth - 1));
            break;
        }
    }
    return value;
}

/// Never a lone scalar, which would be most of what random_value() gives.
Value random_document() {
    Value root;
    if (*rc::gen::arbitrary<bool>()) {
        auto& children = root.v.emplace<std::vector<Value>>();
        const int n = *rc::gen::inRange(1, 8);
        for (int i = 0; i < n; ++i) children.push_back(random_value(4));
    } else {
        auto& members = root.v.emplace<Value::Members>();
        const int n = *rc::gen::inRange(1, 8);
        for (int i = 0; i < n; ++i) members.emplace_back(random_text(), random_value(4));
    }
    return root;
}

void write(const Value& value, JsonWriter& w) {
    if (std::holds_alternative<std::monostate>(value.v)) w.null();
    if (const auto* b = std::get_if<bool>(&value.v)) w.boolean(*b);
    if (const auto* i = std::get_if<std::int64_t>(&value.v)) w.number(*i);
    if (const auto* u = std::get_if<std::uint64_t>(&value.v)) w.number(*u);
    if (const auto* d = std::get_if<double>(&value.v)) w.number(*d);
    if (const auto* s = std::get_if<std::string>(&value.v)) w.string(*s);
    if (const auto* a = std::get_if<std::vector<Value>>(&value.v)) {
        w.begin_array();
        for (const Value& child : *a) write(child, w);
        w.end_array();
    }
    if (const auto* o = std::get_if<Value::Members>(&value.v)) {
        w.begin_object();
        for (const auto& [key, child] : *o) {
            w.key(key);
            write(child, w);
        }
        w.end_object();
    }
}

bool same(const Value& value, JsonView view) {
    if (!view.present()) return false;
    if (std::holds_alternative<std::monostate>(value.v)) return view.type() == JsonType::kNull;
    if (const auto* b = std::get_if<bool>(&value.v)) return view.as_bool() == *b;
    if (const auto* i = std::get_if<std::int64_t>(&value.v)) return view.as_int() == *i;
    if (const auto* u = std::get_if<std::uint64_t>(&value.v)) return view.as_uint() == *u;
    if (const auto* d = std::get_if<double>(&value.v)) {
        return view.type() == JsonType::kDouble &&
               std::bit_cast<std::uint64_t>(view.as_double().value()) ==
                   std::bit_cast<std::uint64_t>(*d);
    }
    if (const auto* s = std::get_if<std::string>(&value.v)) return view.as_string() == *s;
    bool good = true;
    std::size_t n = 0;
    if (const auto* a = std::get_if<std::vector<Value>>(&value.v)) {
        view.each_element([&](std::size_t i, JsonView child) {
            return good = i == n++ && i < a->size() && same((*a)[i], child);
        });
        return good && view.type() == JsonType::kArray && n == a->size() && view.size() == n;
    }
    const auto& members = std::get<Value::Members>(value.v);
    view.each_member([&](std::string_view key, JsonView child) {
        good = n < members.size() && members[n].first == key && same(members[n].second, child);
        ++n;
        return good;
    });
    return good && view.type() == JsonType::kObject && n == members.size() && view.size() == n;
}

RC_GTEST_PROP(JsonProperty, WhatIsWrittenReadsBackTheSame, ()) {
    const Value value = random_document();
    std::string text;
    JsonWriter w(text);
    write(value, w);
    JsonDocument doc;
    const auto root = doc.parse(text);
    RC_ASSERT(root.has_value());
    RC_ASSERT(same(value, *root));
    std::string again;
    root->write_to(again);
    RC_ASSERT(again == text);
    RC_ASSERT(!find_json_fault(text, JsonDocument::kMaxDepth));
}

/// The fast reader and the one that explains are two implementations: on damaged texts they must
/// agree.
RC_GTEST_PROP(JsonProperty, BothReadersGiveTheSameVerdict, ()) {
    std::string text;
    JsonWriter w(text);
    write(random_document(), w);
    const int edits = *rc::gen::inRange(0, 4);
    for (int i = 0; i < edits && !text.empty(); ++i) {
        const auto at = *rc::gen::inRange<std::size_t>(0, text.size());
        const auto fragment =
            *rc::gen::elementOf(std::vector<std::string>{"",        ",",
                                                         ":",       "[",
                                                         "]",       "{",
                                                         "}",       "\"",
                                                         "\\",      " ",
                                                         "0",       "-",
                                                         ".",       "e",
                                                         "1e999",   "tru",
                                                         "\\ud800", "\\udc00",
                                                         "\xff",    "\xc3",
                                                         "\n",      "99999999999999999999",
                                                         "null",    "\x01"});
        text.replace(at, *rc::gen::inRange<std::size_t>(0, 3), fragment);
    }
    JsonDocument doc;
    RC_ASSERT(doc.parse(text).has_value() ==
              !find_json_fault(text, JsonDocument::kMaxDepth).has_value());
}

}  // namespace
}  // namespace stator::codec
