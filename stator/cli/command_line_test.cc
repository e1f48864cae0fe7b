#include "stator/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Words = std::vector<std::string>;

struct Parsed {
    bool ok = false;
    bool help = false;
    std::string error;
    std::vector<std::pair<std::string, Words>> options;
    Words words;
    bool json = false;
    std::string url = "default";
};

Parsed parse(const Words& args, bool with_words = false) {
    Parsed p;
    std::vector<config::FlagValue> flags;
    CommandLine line("stator test");
    line.add_switch("--json", p.json);
    line.add_value("--url", p.url);
    if (with_words) line.add_words(p.words);
    line.add_options(flags);
    const auto outcome = line.parse(args);
    p.ok = outcome.has_value();
    if (!outcome) p.error = outcome.error().message;
    p.help = outcome && *outcome == CommandLine::Outcome::kHelp;
    for (const auto& f : flags) p.options.emplace_back(f.option->key, f.texts);
    return p;
}

TEST(CommandLine, NothingIsFine) {
    const Parsed p = parse({});
    EXPECT_TRUE(p.ok);
    EXPECT_FALSE(p.help);
    EXPECT_THAT(p.options, IsEmpty());
    EXPECT_EQ(p.url, "default");
}

TEST(CommandLine, ValuesInBothSpellings) {
    const Parsed p = parse({"--port", "9000", "--host=0.0.0.0", "--json", "--url", "http://x"});
    ASSERT_TRUE(p.ok) << p.error;
    EXPECT_TRUE(p.json);
    EXPECT_EQ(p.url, "http://x");
    EXPECT_THAT(p.options, ElementsAre(std::pair("server.host", Words{"0.0.0.0"}),
                                       std::pair("server.port", Words{"9000"})));
}

TEST(CommandLine, ValuesThatBeginWithADash) {
    const Parsed p = parse({"--gpu-layers", "-1"});
    ASSERT_TRUE(p.ok) << p.error;
    EXPECT_THAT(p.options, ElementsAre(std::pair("engine.gpu_layers", Words{"-1"})));
}

TEST(CommandLine, RepeatedFlagsAreAllHandedOn) {
    const Parsed p =
        parse({"--model-alias", "a", "--model-alias", "b", "--port", "1", "--port", "2"});
    ASSERT_TRUE(p.ok) << p.error;
    EXPECT_THAT(p.options, ElementsAre(std::pair("model.aliases", Words{"a", "b"}),
                                       std::pair("server.port", Words{"1", "2"})));
}

TEST(CommandLine, TruthValues) {
    const auto access = [](const Words& args) {
        const Parsed p = parse(args);
        EXPECT_TRUE(p.ok) << p.error;
        EXPECT_EQ(p.options.size(), 1U);
        return p.options.empty() ? Words{} : p.options.front().second;
    };
    EXPECT_THAT(access({"--access-log"}), ElementsAre("true"));
    EXPECT_THAT(access({"--access-log", "false"}), ElementsAre("false"));
    EXPECT_THAT(access({"--access-log=false"}), ElementsAre("false"));
    EXPECT_THAT(access({"--no-access-log"}), ElementsAre("false"));
    EXPECT_THAT(parse({"--access-log", "--json"}).options,
                ElementsAre(std::pair("log.access", Words{"true"})));
}

TEST(CommandLine, Help) {
    EXPECT_TRUE(parse({"-h"}).help);
    EXPECT_TRUE(parse({"--port", "1", "--help"}).help);
    EXPECT_TRUE(parse({"--help", "--nonsense"}).help);
}

TEST(CommandLine, UnknownFlagsGetASuggestion) {
    EXPECT_EQ(parse({"--prot", "1"}).error,
              "stator test has no option \"--prot\". Did you mean --port?");
    EXPECT_EQ(parse({"--max-runing=3"}).error,
              "stator test has no option \"--max-runing\". Did you mean --max-running?");
    EXPECT_EQ(parse({"--xyzzy"}).error, "stator test has no option \"--xyzzy\".");
}

TEST(CommandLine, StrayWords) {
    EXPECT_EQ(parse({"model.gguf"}).error,
              "stator test takes no further words, but \"model.gguf\" was given.");
    const Parsed p = parse({"serve", "me", "--json", "well"}, true);
    ASSERT_TRUE(p.ok) << p.error;
    EXPECT_THAT(p.words, ElementsAre("serve", "me", "well"));
    EXPECT_THAT(parse({"--", "--json"}, true).words, ElementsAre("--json"));
}

TEST(CommandLine, MissingValue) {
    const Parsed p = parse({"--json", "--port"});
    EXPECT_FALSE(p.ok);
    EXPECT_THAT(p.error, HasSubstr("\"--port\" needs a value after it"));
}

}  // namespace
}  // namespace stator::cli
