#include "stator/cli/help.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "stator/config/options.h"

namespace stator::cli {
namespace {

using ::testing::HasSubstr;

TEST(Help, EntriesAreWrappedInTwoColumns) {
    EXPECT_EQ(help_entry("--port NUMBER", "Port."), "  --port NUMBER               Port.\n");
    EXPECT_EQ(help_entry("--a-flag-that-is-rather-long TEXT", "Meaning."),
              "  --a-flag-that-is-rather-long TEXT\n                              Meaning.\n");
    std::string words;
    for (int i = 0; i < 40; ++i) words += "word ";
    const std::string text = help_entry("-x", words + "end");
    EXPECT_GT(std::ranges::count(text, '\n'), 2);
    EXPECT_EQ(text.find("  word\n  "), std::string::npos);
}

TEST(Help, ServeNamesEveryOption) {
    const std::string text = serve_help(plain_style());
    for (const config::Option& o : config::options())
        EXPECT_THAT(text, HasSubstr("  " + std::string(o.flag))) << o.key;
    EXPECT_THAT(text, HasSubstr("--engine ENGINE"));
    EXPECT_THAT(text, HasSubstr("--access-log, --no-access-log"));
    EXPECT_THAT(text, HasSubstr("(default: 127.0.0.1)"));
}

TEST(Help, FitsAHundredColumns) {
    for (const std::string& text :
         {serve_help(plain_style()), chat_help(plain_style()), frontend_help(plain_style()),
          worker_help(plain_style()), events_help(plain_style()), config_help(plain_style()),
          version_help(plain_style())}) {
        std::size_t begin = 0;
        while (begin < text.size()) {
            const std::size_t end = text.find('\n', begin);
            ASSERT_NE(end, std::string::npos);
            EXPECT_LE(end - begin, 101U) << text.substr(begin, end - begin);
            begin = end + 1;
        }
    }
}

TEST(Help, OverviewListsTheCommands) {
    const std::string text = overview({{"serve", "runs"}, {"chat", "talks"}}, plain_style());
    EXPECT_THAT(text, HasSubstr("stator serve                runs\n"));
    EXPECT_THAT(text, HasSubstr("stator chat                 talks\n"));
}

}  // namespace
}  // namespace stator::cli
