#include "stator/codec/json_writer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace stator::codec {
namespace {

template <typename F>
std::string written(F f) {
    std::string out;
    JsonWriter w(out);
    f(w);
    return out;
}

std::string in_quotes(std::string_view s) {
    std::string out;
    append_json_string(out, s);
    return out;
}

TEST(JsonWriter, CommasAtEveryLevel) {
    EXPECT_EQ(written([](JsonWriter& w) {
                  w.begin_object().key("a").number(1).key("b").begin_array().number(2).string("x");
                  w.begin_object().end_object().begin_array().end_array().null().end_array();
                  w.key("c").boolean(true).key("d").boolean(false).end_object();
              }),
              R"({"a":1,"b":[2,"x",{},[],null],"c":true,"d":false})");
}

TEST(JsonWriter, RawIsOneValue) {
    EXPECT_EQ(written([](JsonWriter& w) {
                  w.begin_array().raw("{\"x\":1}").raw("2").number(3).begin_object();
                  w.key("r").raw("[]").key("s").null().end_object().raw("4").end_array();
              }),
              R"([{"x":1},2,3,{"r":[],"s":null},4])");
}

TEST(JsonWriter, AppendsToWhatIsThere) {
    std::string out = "data: ";
    JsonWriter(out).begin_array().end_array();
    EXPECT_EQ(out, "data: []");
}

TEST(JsonWriter, Integers) {
    EXPECT_EQ(written([](JsonWriter& w) {
                  w.begin_array().number(0).number(-1).number(7U);
                  w.number(std::numeric_limits<std::int64_t>::min());
                  w.number(std::numeric_limits<std::int64_t>::max());
                  w.number(std::numeric_limits<std::uint64_t>::max()).end_array();
              }),
              "[0,-1,7,-9223372036854775808,9223372036854775807,18446744073709551615]");
}

TEST(JsonWriter, DoublesAreShortestAndStayDoubles) {
    const auto number = [](double d) { return written([d](JsonWriter& w) { w.number(d); }); };
    EXPECT_EQ(number(0.1), "0.1");
    EXPECT_EQ(number(1.0), "1.0");
    EXPECT_EQ(number(-0.0), "-0.0");
    EXPECT_EQ(number(-12.5), "-12.5");
    EXPECT_EQ(number(1e300), "1e+300");
    EXPECT_EQ(number(123456789012345680000.0), "123456789012345683968.0");
    EXPECT_EQ(number(std::numeric_limits<double>::denorm_min()), "5e-324");
    EXPECT_EQ(number(-std::numeric_limits<double>::max()), "-1.7976931348623157e+308");
    EXPECT_EQ(number(std::nan("")), "null");
    EXPECT_EQ(number(std::numeric_limits<double>::infinity()), "null");
    EXPECT_EQ(number(-std::numeric_limits<double>::infinity()), "null");
}

TEST(JsonWriter, NullInPlaceOfNanKeepsTheCommas) {
    EXPECT_EQ(written([](JsonWriter& w) {
                  w.begin_array().number(std::nan("")).number(std::nan("")).end_array();
              }),
              "[null,null]");
}

TEST(JsonString, EscapesWhatItMust) {
    EXPECT_EQ(in_quotes(""), "\"\"");
    EXPECT_EQ(in_quotes("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
    EXPECT_EQ(in_quotes("\b\f\n\r\t"), R"("\b\f\n\r\t")");
    EXPECT_EQ(in_quotes(std::string_view("\0\x01\x1f\x7f", 4)), "\"\\u0000\\u0001\\u001f\x7f\"");
    EXPECT_EQ(in_quotes("Grüße 🙂"), "\"Grüße 🙂\"");
}

/// Each byte that may stand in a string, at each place relative to the 8 bytes that are looked at
/// together.
TEST(JsonString, EscapingDoesNotDependOnTheNeighbours) {
    for (int c = 0; c < 0x80; ++c) {
        for (std::size_t before = 0; before < 18; ++before) {
            for (const char fill : {'a', '\x7f', ' ', '!', '#', '[', ']'}) {
                const std::string left(before, fill);
                const std::string right(17 - before, fill);
                const std::string escaped = in_quotes(std::string(1, static_cast<char>(c)));
                const std::string got = in_quotes(left + static_cast<char>(c) + right);
                ASSERT_EQ(got, "\"" + left + escaped.substr(1, escaped.size() - 2) + right + "\"");
            }
        }
    }
}

#ifndef NDEBUG
using JsonWriterDeathTest = testing::Test;

TEST(JsonWriterDeathTest, AssertsOnWrongNesting) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    std::string out;
    EXPECT_DEATH(JsonWriter(out).begin_object().end_array(), "assertion");
    EXPECT_DEATH(JsonWriter(out).begin_object().number(1), "assertion");
    EXPECT_DEATH(JsonWriter(out).begin_array().key("a"), "assertion");
    EXPECT_DEATH(JsonWriter(out).begin_object().key("a").end_object(), "assertion");
    EXPECT_DEATH(JsonWriter(out).begin_object().key("a").key("b"), "assertion");
    EXPECT_DEATH(JsonWriter(out).number(1).number(2), "assertion");
    EXPECT_DEATH(JsonWriter(out).end_object(), "assertion");
    EXPECT_DEATH(JsonWriter(out).string("\xff"), "assertion");
}
#endif

}  // namespace
}  // namespace stator::codec
