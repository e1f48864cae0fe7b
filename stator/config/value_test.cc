#include "stator/config/value.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <chrono>

namespace stator::config {
namespace {

using std::chrono::milliseconds;

const Option& of(std::string_view key) { return *find_option(key); }

Value parsed(std::string_view key, std::string_view text) {
    auto v = parse_value(of(key), text);
    EXPECT_TRUE(v.has_value()) << text << ": " << (v ? "" : v.error().message);
    return v ? *v : Value{};
}

std::string refused(std::string_view key, std::string_view text) {
    const auto v = parse_value(of(key), text);
    EXPECT_FALSE(v.has_value()) << key << " took " << text;
    return v ? std::string() : v.error().message;
}

TEST(Value, Integers) {
    EXPECT_EQ(parsed("server.port", "8000"), Value(std::int64_t{8000}));
    EXPECT_EQ(parsed("server.port", " 0 "), Value(std::int64_t{0}));
    EXPECT_EQ(parsed("engine.gpu_layers", "-1"), Value(std::int64_t{-1}));
    EXPECT_EQ(refused("server.port", "70000"),
              "\"70000\" is not possible here; it must be a whole number from 0 to 65535");
    for (const char* bad :
         {"", "abc", "80x", "8 0", "8.5", "0x10", "+5", "-1", "1e3", "99999999999999999999"}) {
        refused("server.port", bad);
    }
}

TEST(Value, Decimals) {
    EXPECT_EQ(parsed("sampling.temperature", "0.7"), Value(0.7));
    EXPECT_EQ(parsed("sampling.temperature", "2"), Value(2.0));
    EXPECT_EQ(parsed("sampling.top_p", "1"), Value(1.0));
    EXPECT_EQ(refused("sampling.top_p", "0"),
              "\"0\" is not possible here; it must be a number above 0 and at most 1");
    for (const char* bad : {"nan", "inf", "2.1", "-0.1", "1,5", ""}) {
        refused("sampling.temperature", bad);
    }
}

TEST(Value, Booleans) {
    for (const char* yes : {"true", "True", "yes", "on", "1"})
        EXPECT_EQ(parsed("log.access", yes), Value(true));
    for (const char* no : {"false", "NO", "off", "0"})
        EXPECT_EQ(parsed("log.access", no), Value(false));
    EXPECT_EQ(refused("log.access", "maybe"),
              "\"maybe\" is not possible here; it must be true or false");
}

TEST(Value, Durations) {
    EXPECT_EQ(parsed("server.grace", "500ms"), Value(milliseconds(500)));
    EXPECT_EQ(parsed("server.grace", "30s"), Value(milliseconds(30'000)));
    EXPECT_EQ(parsed("server.grace", "30"), Value(milliseconds(30'000)));
    EXPECT_EQ(parsed("server.grace", "1.5 s"), Value(milliseconds(1500)));
    EXPECT_EQ(parsed("server.grace", "2m"), Value(milliseconds(120'000)));
    EXPECT_EQ(parsed("server.grace", "1h"), Value(milliseconds(3'600'000)));
    EXPECT_EQ(parsed("server.grace", "0"), Value(milliseconds(0)));
    EXPECT_EQ(refused("server.grace", "25h"),
              "\"25h\" is not possible here; it must be a time such as 500ms, 30s or 2m from 0s to "
              "24h");
    for (const char* bad :
         {"-1s", "s", "1 year", "1.2.3s", "0.5ms", "1e3s", "9999999999999999999h"})
        refused("server.grace", bad);
}

TEST(Value, Sizes) {
    EXPECT_EQ(parsed("limits.max_body_size", "65536"), Value(ByteSize{65536}));
    EXPECT_EQ(parsed("limits.max_body_size", "64K"), Value(ByteSize{65536}));
    EXPECT_EQ(parsed("limits.max_body_size", "64 KiB"), Value(ByteSize{65536}));
    EXPECT_EQ(parsed("limits.max_body_size", "1.5m"), Value(ByteSize{1'572'864}));
    EXPECT_EQ(parsed("limits.max_body_size", "1G"), Value(ByteSize{1ULL << 30}));
    for (const char* bad : {"1KB", "5G", "12", "-1K", "K", "1.0001K"})
        refused("limits.max_body_size", bad);
}

TEST(Value, Choices) {
    EXPECT_EQ(parsed("log.level", "warn"), Value(Choice{3}));
    EXPECT_EQ(parsed("log.level", "WARN"), Value(Choice{3}));
    EXPECT_EQ(refused("log.level", "loud"),
              "\"loud\" is not possible here; it must be one of trace, debug, info, warn, error, "
              "off");
}

TEST(Value, Lists) {
    EXPECT_EQ(parsed("model.aliases", "a, b,,c "), Value(std::vector<std::string>{"a", "b", "c"}));
    EXPECT_EQ(parsed("model.aliases", ""), Value(std::vector<std::string>{}));
}

TEST(Value, TextsKeepWhatTheyAreButForControlCharacters) {
    EXPECT_EQ(parsed("server.host", "::1"), Value(std::string("::1")));
    EXPECT_EQ(refused("server.host", "a\nb"),
              "\"a\\x0ab\" has control characters; it must be a text");
}

TEST(Value, QuotedIsCutBetweenCharactersAndEscaped) {
    EXPECT_EQ(in_quotes("a\"b\\c\x01"), "\"a\\\"b\\\\c\\x01\"");
    EXPECT_EQ(in_quotes(std::string(60, 'x')), "\"" + std::string(60, 'x') + "\"");
    EXPECT_EQ(path_in_quotes(std::string(200, 'x')), "\"" + std::string(200, 'x') + "\"");
    EXPECT_EQ(in_quotes(std::string(59, 'x') + "éé"), "\"" + std::string(59, 'x') + "…\"");
}

TEST(Value, AnythingThatIsReadIsWrittenSoThatItReadsTheSame) {
    EXPECT_TRUE(rc::check([] {
        const Option& option = options()[*rc::gen::inRange<std::size_t>(0, options().size())];
        const std::string text = *rc::gen::container<std::string>(
            rc::gen::elementOf(std::string("0123456789.kmgsh -x,")));
        const auto value = parse_value(option, text);
        if (!value) return;
        const auto again = parse_value(option, format_value(option, *value));
        RC_ASSERT(again.has_value());
        RC_ASSERT(*again == *value);
    }));
}

}  // namespace
}  // namespace stator::config
