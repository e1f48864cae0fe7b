#include "stator/config/yaml_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace stator::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> problems(std::string_view text) {
    std::vector<std::string> out;
    for (const Problem& p : read_yaml("s.yaml", text).problems) out.push_back(p.text());
    return out;
}

TEST(YamlFile, ReadsSectionsWithTheirOptionsAndLines) {
    const FileReading r = read_yaml("s.yaml",
                                    "server:\n"
                                    "  port: 8080   # a comment\n"
                                    "  cors_origins: [https://a.example, 'b,c']\n"
                                    "\n"
                                    "limits:\n"
                                    "  max_body_size: 8M\n"
                                    "log: {access: no, level: debug}\n");
    EXPECT_THAT(r.problems, IsEmpty());
    ASSERT_EQ(r.entries.size(), 5U);
    EXPECT_EQ(r.entries[0].option->key, "server.port");
    EXPECT_EQ(r.entries[0].value, Value(std::int64_t{8080}));
    EXPECT_EQ(r.entries[0].line, 2);
    EXPECT_EQ(r.entries[1].value, Value(std::vector<std::string>{"https://a.example", "b,c"}));
    EXPECT_EQ(r.entries[2].value, Value(ByteSize{8U << 20}));
    EXPECT_EQ(r.entries[2].line, 6);
    EXPECT_EQ(r.entries[3].value, Value(false));
    EXPECT_EQ(r.entries[4].value, Value(Choice{1}));
}

TEST(YamlFile, NothingIsFine) {
    EXPECT_THAT(problems(""), IsEmpty());
    EXPECT_THAT(problems("# only a comment\n"), IsEmpty());
    EXPECT_THAT(problems("server:\n#  port: 1\n"), IsEmpty());
    EXPECT_THAT(problems("---\nserver: {port: 1}\n"), IsEmpty());
}

TEST(YamlFile, ReportsEveryProblemWithItsLine) {
    EXPECT_THAT(
        problems("server:\n"
                 "  prot: 8080\n"
                 "  port: lots\n"
                 "log:\n"
                 "  level: loud\n"),
        ElementsAre("s.yaml:2: There is no option \"server.prot\". Did you mean server.port?",
                    "s.yaml:3: server.port: \"lots\" is not possible here; it must be a whole "
                    "number from 0 to 65535.",
                    "s.yaml:5: log.level: \"loud\" is not possible here; it must be one of "
                    "trace, debug, info, warn, error, off."));
}

TEST(YamlFile, HelpsWithNamesInTheWrongPlace) {
    EXPECT_THAT(
        problems("engine: {port: 1}"),
        ElementsAre("s.yaml:1: There is no option \"engine.port\". Did you mean server.port?"));
    EXPECT_THAT(problems("port: 1"),
                ElementsAre("s.yaml:1: There is no section \"port\". Write \"port\" below "
                            "\"server:\"."));
    EXPECT_THAT(problems("server.port: 1"),
                ElementsAre("s.yaml:1: There is no section \"server.port\". Write \"port\" below "
                            "\"server:\"."));
    EXPECT_THAT(problems("sever: {port: 1}"),
                ElementsAre("s.yaml:1: There is no section \"sever\". Did you mean server?"));
    EXPECT_THAT(problems("kubernetes: 1"),
                ElementsAre("s.yaml:1: There is no section \"kubernetes\"."));
}

TEST(YamlFile, WrongShapes) {
    EXPECT_THAT(problems("- a\n- b\n"),
                ElementsAre(HasSubstr("s.yaml:1: The file must consist of")));
    EXPECT_THAT(problems("just words"), ElementsAre(HasSubstr("but it is a single value.")));
    EXPECT_THAT(problems("server: 5"), ElementsAre(HasSubstr("server is a section")));
    EXPECT_THAT(problems("server:\n  port: [1, 2]\n"),
                ElementsAre("s.yaml:2: server.port is a list; it must be a whole number from 0 to "
                            "65535."));
    EXPECT_THAT(problems("server:\n  port: {a: 1}\n"),
                ElementsAre(HasSubstr("server.port is a section")));
    EXPECT_THAT(problems("server:\n  port:\n"), ElementsAre(HasSubstr("server.port has no value")));
    EXPECT_THAT(problems("model:\n  aliases: [a, [b]]\n"),
                ElementsAre(HasSubstr("model.aliases has an item that is a list")));
    EXPECT_THAT(problems("[a]: 1"), ElementsAre(HasSubstr("A name is expected here")));
}

TEST(YamlFile, RepeatedNames) {
    EXPECT_THAT(problems("server:\n  port: 1\n  port: 2\n"),
                ElementsAre("s.yaml:3: \"server.port\" is given twice; the first time in line 2."));
    EXPECT_THAT(problems("server: {port: 1}\nserver: {port: 2}\n"),
                ElementsAre("s.yaml:2: \"server\" is given twice; the first time in line 1."));
}

TEST(YamlFile, BrokenSyntaxHasALine) {
    const auto found = problems("server:\n  port: [1\n");
    ASSERT_EQ(found.size(), 1U);
    EXPECT_THAT(found[0], HasSubstr("s.yaml:"));
    EXPECT_THAT(found[0], HasSubstr("This is not YAML"));
    EXPECT_THAT(problems("server: {port: 1}\n---\nserver: {port: 2}\n"),
                ElementsAre(HasSubstr("A second document begins here")));
}

TEST(YamlFile, HostileFilesAreBounded) {
    EXPECT_THAT(problems(std::string(kMaxFileBytes + 1, '#')),
                ElementsAre("s.yaml: The file has 1048577 bytes; a configuration file may have at "
                            "most 1048576."));
    // Each level doubles the expansion of the one before: harmless as long as nobody expands it.
    std::string bomb = "a0: &a0 [x, x]\n";
    for (int i = 1; i < 40; ++i)
        bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" +
                std::to_string(i - 1) + ", *a" + std::to_string(i - 1) + "]\n";
    EXPECT_EQ(problems(bomb).size(), 40U);
    EXPECT_EQ(problems(std::string(100'000, '[')).size(), 1U);
    // yaml-cpp finds one document after the other here without reading on.
    EXPECT_FALSE(problems("!!int- log\n? port loglog{").empty());
    EXPECT_FALSE(problems("&aport\tlog~\n:}\n? ~").empty());
}

TEST(YamlFile, AnyTextEndsInEntriesOrProblems) {
    EXPECT_TRUE(rc::check([] {
        const auto piece = rc::gen::elementOf(std::vector<std::string>{
            "server", "port", ":",  " ", "\n",   "  ",  "- ",    "[",     "]", "{",
            "}",      "&a",   "*a", "1", "\"",   "'",   "#",     "!!int", "~", "? ",
            "|",      ">",    "\t", "%", "\xff", "log", "level", "debug", "<<"});
        std::string text;
        for (const std::string& p : *rc::gen::container<std::vector<std::string>>(piece)) text += p;
        const FileReading r = read_yaml("s.yaml", text);
        for (const Problem& p : r.problems) RC_ASSERT(!p.message.empty());
        for (const FileEntry& e : r.entries) RC_ASSERT(e.line >= 1);
    }));
}

}  // namespace
}  // namespace stator::config
