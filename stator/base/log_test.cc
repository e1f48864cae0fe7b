#include "stator/base/log.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace stator {
namespace {

/// What a call logs, without the time in front. Not the level alone is global, standard error is
/// too.
class Log : public testing::Test {
  protected:
    void TearDown() override { set_log(LogLevel::kInfo, LogFormat::kText); }

    static std::string text(std::string_view sentence, LogFields fields) {
        set_log(LogLevel::kInfo, LogFormat::kText);
        const std::string line = captured(sentence, fields);
        return line.substr(line.find(' ') + 1);
    }
    static std::string json(std::string_view sentence, LogFields fields) {
        set_log(LogLevel::kInfo, LogFormat::kJson);
        const std::string line = captured(sentence, fields);
        EXPECT_TRUE(line.starts_with("{\"time\":\"2")) << line;
        return "{" + line.substr(line.find(',') + 1);
    }
    static std::string captured(std::string_view sentence, LogFields fields) {
        testing::internal::CaptureStderr();
        log_info(sentence, fields);
        return testing::internal::GetCapturedStderr();
    }
};

TEST_F(Log, TextLines) {
    EXPECT_EQ(text("It is up.", {}), "info  It is up.\n");
    EXPECT_EQ(text("It is up.", {{"port", 8080}, {"host", "::1"}, {"tls", false}, {"load", 0.25}}),
              "info  It is up. port=8080 host=::1 tls=false load=0.25\n");
}

TEST_F(Log, TextValuesAreQuotedWhereTheyMust) {
    EXPECT_EQ(
        text("x", {{"a", ""}, {"b", "one two"}, {"c", "k=v"}, {"d", "say \"hi\""}, {"e", "\\"}}),
        "info  x a=\"\" b=\"one two\" c=\"k=v\" d=\"say \\\"hi\\\"\" e=\"\\\\\"\n");
    EXPECT_EQ(text("x", {{"name", "Grüße"}}), "info  x name=\"Grüße\"\n");
}

TEST_F(Log, AValueCanNotForgeALineOrSpeakToTheTerminal) {
    EXPECT_EQ(text("x", {{"path", "/a\n2026 error forged"}}),
              "info  x path=\"/a\\n2026 error forged\"\n");
    EXPECT_EQ(text("x", {{"path", std::string_view("\x1b[31m\r\t\0\x7f", 9)}}),
              "info  x path=\"\\u001b[31m\\r\\t\\u0000\\u007f\"\n");
    EXPECT_EQ(text("x", {{"path",
                          "\xC2\x9B"
                          "31m"}}),
              "info  x path=\"\\u009b31m\"\n");
    EXPECT_EQ(json("x", {{"path", "/a\n\x1b\"}"}}),
              "{\"level\":\"info\",\"msg\":\"x\",\"path\":\"/a\\n\\u001b\\\"}\"}\n");
}

TEST_F(Log, JsonLines) {
    EXPECT_EQ(
        json("It is \"up\".", {{"port", 8080}, {"host", "::1"}, {"tls", true}, {"load", 0.25}}),
        "{\"level\":\"info\",\"msg\":\"It is \\\"up\\\".\",\"port\":8080,\"host\":\"::1\","
        "\"tls\":true,\"load\":0.25}\n");
    EXPECT_EQ(json("x", {{"f", std::numeric_limits<double>::quiet_NaN()},
                         {"g", -std::numeric_limits<double>::infinity()}}),
              "{\"level\":\"info\",\"msg\":\"x\",\"f\":\"nan\",\"g\":\"-inf\"}\n");
}

TEST_F(Log, BytesThatAreNoUtf8AreReplaced) {
    const std::string r = "\xEF\xBF\xBD";
    const auto value = [](std::string_view v) {
        const std::string line = json("x", {{"v", v}});
        const std::size_t at = line.find("\"v\":\"") + 5;
        return line.substr(at, line.rfind('"') - at);
    };
    EXPECT_EQ(value("a\xFF"
                    "b"),
              "a" + r + "b");
    EXPECT_EQ(value("\xC3"), r);
    EXPECT_EQ(value("\xC0\xAF"), r + r);
    EXPECT_EQ(value("\xE0\x80\x80"), r + r + r);
    EXPECT_EQ(value("\xED\xA0\x80"), r + r + r);
    EXPECT_EQ(value("\xF4\x90\x80\x80"), r + r + r + r);
    EXPECT_EQ(value("\xF0\x9F\x98"), r + r + r);
    EXPECT_EQ(value("ä漢🙂\xF4\x8F\xBF\xBF"), "ä漢🙂\xF4\x8F\xBF\xBF");
}

TEST_F(Log, BracesAreNotFormats) {
    EXPECT_EQ(text("{} {0} %v", {{"a", "{}%v"}}), "info  {} {0} %v a={}%v\n");
}

TEST_F(Log, LevelsBelowTheSetOneAreSilent) {
    set_log(LogLevel::kWarn, LogFormat::kText);
    EXPECT_FALSE(log_enabled(LogLevel::kInfo));
    EXPECT_TRUE(log_enabled(LogLevel::kError));
    EXPECT_EQ(captured("x", {}), "");
    testing::internal::CaptureStderr();
    log_error("y");
    EXPECT_TRUE(testing::internal::GetCapturedStderr().ends_with("error y\n"));
    set_log(LogLevel::kOff, LogFormat::kText);
    EXPECT_FALSE(log_enabled(LogLevel::kError));
}

}  // namespace
}  // namespace stator
